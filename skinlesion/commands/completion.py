"""`skinlesion completion SHELL`: a script that completes commands, keys, choices and files, made from the schemas."""

from collections.abc import Iterator, Mapping

from skinlesion.config.reference import ANY, choices, groups, keys

Commands = Mapping[str, tuple[type, str]]  # schema and one-line help of each command

# bash breaks words at "=", zsh does not: `current` is what is typed since the last space, `key=` is put back where
# the shell expects it. The shell adds no space of its own, since a key goes on after its "=".
_BASH = """\
# eval "$(skinlesion completion {shell})" in the shell's start-up file completes skinlesion
{setup}_skinlesion() {{
  local before="${{COMP_LINE:0:$COMP_POINT}}" command="" words="" files="" prefix="" word key found
  local current="${{before##* }}"
  for word in {split}; do
    case "$word" in {commands}) command="$word"; break ;; esac
  done
  key="${{current%%=*}}"
  if [[ -z "$command" || "$current" == "$command" ]]; then
    words="{first}"
  elif [[ "$current" != *=* ]]; then
    case "$command" in
{keys}
    esac
  else
    [[ "{breaks}" != *=* ]] && prefix="$key="
    current="${{current#*=}}"
    case "$command $key" in
{values}
      *) return ;;
    esac
  fi
  COMPREPLY=()
  if [[ -n "$files" ]]; then
    for found in "$current"*; do
      [[ -e "$found" ]] || continue
      [[ -d "$found" ]] && word="/" || word=" "
      COMPREPLY+=("$prefix$(printf %q "$found")$word")
    done
    return
  fi
  while IFS= read -r found; do
    case "$found" in
      "") ;;
      *=) COMPREPLY+=("$found") ;;
      *) COMPREPLY+=("$prefix$found ") ;;
    esac
  done < <(compgen -W "$words" -- "$current")
}}
complete -o nospace -F _skinlesion skinlesion"""


def script(shell: str, commands: Commands) -> str:
    """The completion script of a shell.

    Args:
        shell: "bash", "zsh" or "fish".
        commands: Schema and one-line help by name.
    """
    if shell == "fish":
        return "\n".join(_fish(commands))
    words = {name: dict(_words(name, schema)) for name, (schema, _) in commands.items()}
    cases = {
        f'      "{name} {key[:-1]}")': "files=1" if values is None else f'words="{" ".join(values)}"'
        for name, each in words.items()
        for key, values in each.items()
        if values != []
    }
    is_bash = shell == "bash"
    return _BASH.format(
        shell=shell,
        setup="" if is_bash else "autoload -U +X bashcompinit && bashcompinit\n",
        split="$before" if is_bash else "${=before}",
        breaks="$COMP_WORDBREAKS" if is_bash else "",
        commands="|".join([*commands, "completion"]),
        first=" ".join([*commands, "completion", "--help", "--version"]),
        keys="\n".join(
            [f'      {name}) words="{" ".join([*each, "--help"])}" ;;' for name, each in words.items()]
            + ['      completion) words="bash zsh fish" ;;']
        ),
        values="\n".join(f"{case} {action} ;;" for case, action in cases.items()),
    )


def _fish(commands: Commands) -> Iterator[str]:
    names = " ".join([*commands, "completion"])
    yield "# skinlesion completion fish > ~/.config/fish/completions/skinlesion.fish completes skinlesion"
    yield "complete -c skinlesion -f"
    for name, (_, about) in [*commands.items(), ("completion", (type, "Print the completion script of a shell."))]:
        yield f"complete -c skinlesion -n 'not __fish_seen_subcommand_from {names}' -a {name} -d {_quoted(about)}"
    yield "complete -c skinlesion -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'"
    for name, (schema, _) in commands.items():
        meanings = {f"{key.name}=": key.meaning for key in keys(schema).values()}
        for key, values in _words(name, schema):
            words = " ".join([key, *(f"{key}{value}" for value in values or ())])
            about = _quoted(meanings.get(key, "configuration group" if "." not in key else ""))
            yield f"complete -c skinlesion -n '__fish_seen_subcommand_from {name}' -a '{words}' -d {about}"
        paths = "|".join(key.name.replace(".", "\\.") for key in keys(schema).values() if key.is_path)
        is_path = f'string match -rq "^({paths})=" -- (commandline -ct)'
        files = '(__fish_complete_path (string replace -r "^[^=]*=" "" -- (commandline -ct)))'
        prefix = '(string match -r "^[^=]*=" -- (commandline -ct))'
        if paths:
            yield f"complete -c skinlesion -n '__fish_seen_subcommand_from {name}; and {is_path}' -a '{prefix}{files}'"


def _words(command: str, schema: type) -> Iterator[tuple[str, list[str] | None]]:
    """`key=` and the words that may follow, None for files, of each group and key of a command."""
    for group in groups(command):
        if "@" not in group:
            yield f"{group}=", choices(group)
    for key in keys(schema).values():
        for phase in ("head", "high", "middle") if ANY in key.name else ("",):
            yield f"{key.name.replace(ANY, phase)}=", None if key.is_path else list(key.values)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
