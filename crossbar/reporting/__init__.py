"""Pictures of what arrays make of a matrix: one HTML file, drawn without scripts or other files."""
