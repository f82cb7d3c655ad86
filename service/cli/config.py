"""`barprop config`: the settings as they are in force."""

import typer

from service.cli import opening, output
from service.cli.options import AsJson

app = typer.Typer(name="config", help="Show the settings.")


@app.command()
def show(as_json: AsJson = False) -> None:
    """Show every setting as it is in force, passwords hidden.

    \b
    barprop config show
    BARPROP_SERVICE__PORT=9000 barprop config show

    Defaults give way to the TOML file, the file to the environment (BARPROP_SECTION__KEY).
    """
    import store.database
    import store.settings

    settings = opening.settings()
    content = settings.model_dump(mode="json")
    content["database"]["url"] = store.database.shown(settings.database.url)
    file = store.settings.config_file()
    if as_json:
        output.document({"file": str(file), "file_exists": file.exists(), "settings": content})
        return
    output.line(f"# {file}{'' if file.exists() else ' (not there)'}")
    for section, values in content.items():
        for name, value in values.items():
            output.line(f"{section}.{name} = {value}")
