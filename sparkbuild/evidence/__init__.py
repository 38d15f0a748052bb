"""What is said of an artifact in forms that others read: statements, a bill of materials, signatures."""
