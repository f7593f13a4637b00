"""What the machine does meanwhile: compilations, memory, and the settings under which memory is kept."""
