"""How much memory a model server needs: by the file's header, by the engine's own oracle, by what was measured."""
