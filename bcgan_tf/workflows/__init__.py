"""The stages of the commands: the only modules that know run folders."""
