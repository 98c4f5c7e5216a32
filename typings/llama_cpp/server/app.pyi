from fastapi import FastAPI
from llama_cpp.server.settings import ModelSettings, ServerSettings

def create_app(*, server_settings: ServerSettings, model_settings: list[ModelSettings]) -> FastAPI: ...
