"""The formats that llamazoo reads and writes by itself."""
