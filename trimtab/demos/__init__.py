"""The bundled examples, each a folder with its data and the script that made the data: three tasks with task files
(handbook, spam, style)."""
