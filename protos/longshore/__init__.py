"""The contract between the controller, its users and its agents."""
