"""Where sound comes from: NSynth, soundfonts, FM voices; one manifest format for all of them."""
