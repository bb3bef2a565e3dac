"""The shared weights: training, evaluating and exporting subnets. Needs torch, torchvision and safetensors."""
