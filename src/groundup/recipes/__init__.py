"""The packaged recipes of complete runs, with comments. `groundup recipes` lists them."""
