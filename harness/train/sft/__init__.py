"""The plain path: training by TRL's SFTTrainer."""
