"""Diffusion and flow models as something to align: pictures are scored by how well they are denoised. Needs the extra
`diffusion`; nothing of it is loaded by the other domains."""
