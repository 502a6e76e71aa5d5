"""The MobileNetV2 network: its layers, seeded weights, labels and published figures."""
