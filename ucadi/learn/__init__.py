"""All that needs torch: networks, training, inference, Grad-CAM."""
