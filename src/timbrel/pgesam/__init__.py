"""The timbre map and its generator: pitch-conditioned synthesis from a two-dimensional latent space.

Method: Limberg, Schulz, Zhang, Weinzierl, "Pitch-Conditioned Instrument Sound Synthesis From an Interactive Timbre
Latent Space", DAFx 2025 (arXiv 2510.04339).

    losses, curriculum            the seven loss terms, and how their weights move during training
    dataset                       notes as the two models see them: instrument, family and sounding pitch
    linear                        layers that train through oneDNN
    vae, vae_training             stage 1: the map, and a head that hears the pitch
    generator, generator_training stage 2: map point and pitch to embedding frames
    evaluation                    V_inst, V_pitch, pitch accuracy, embedding error, alarms (numpy only)
    duration                      a 4-second note told in another length (numpy only)
    weights, export               safetensors and ONNX

Serving imports ``duration`` only; everything else may import torch.
"""
