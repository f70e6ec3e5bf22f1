"""What each command does; light to name, loaded only when the command runs."""
