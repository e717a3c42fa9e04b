"""From a sound to vectors in which near means similar in tone colour.

    interface   what an encoder is: clips to an embedding and a style          numpy
    registry    every encoder by name, whoever computes it                     numpy, torch when one is opened
    frontend    onset, three seconds, level: what every encoder hears          numpy
    filterbank  the mel scale: frames, window, filters                         numpy
    baselines   MFCC and mel averages: what a trained encoder has to beat      numpy
    disturb     noise, equaliser, room, lead-in on waveforms                   numpy
    retrieval   recall@k of one set of vectors                                 numpy
    mel, timbre, style      the network                                        torch
    augment, contrastive, batches, training                                    torch
    storage, export         safetensors, ONNX                                  torch
    efficientat_mel         EfficientAT's picture, at 32 kHz                   numpy
    efficientat             EfficientAT from its published file                torch
    efficientat_audio       the same from samples: picture and network         torch
    blocks                  style of named blocks: moments or Gram             torch
    graph                   named inputs and outputs; ONNX, and its parity     torch
    openl3_mel, clap_input  what OpenL3 and CLAP hear, at 48 kHz               numpy
    openl3                  OpenL3 from its published Keras weights            torch
    clap, clap_text         CLAP's two towers from LAION's checkpoints         torch

Serving imports the numpy modules only; the network reaches it as ``timbre_encoder.onnx``.
"""
