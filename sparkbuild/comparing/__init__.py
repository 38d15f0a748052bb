"""What differs between two artifacts, and what that means."""
