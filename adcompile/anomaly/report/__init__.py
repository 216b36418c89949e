"""What people look at after an evaluation: pictures, tables, charts, and one page with all of it."""
