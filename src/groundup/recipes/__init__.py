"""The packaged recipes: complete, commented runs. `groundup recipes` lists them."""
