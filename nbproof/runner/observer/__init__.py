"""What tells a kernel which files are opened; its folder is on the path of child processes."""
