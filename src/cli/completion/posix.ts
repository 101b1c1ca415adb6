import type { OptionWords, ProgramWords, Value } from './words.ts'

/**
 * The scripts for bash and zsh. Both walk over the words before the cursor in the same way: an option that takes a value
 * swallows the next word, the first other word is the command, the rest are its values. Nothing that the user has typed is
 * evaluated; models are asked of the daemon, of whose answer come CIDs and plain names and nothing else.
 */
export function bashScript (words: ProgramWords): string {
  const { name } = words
  return `# bash completion for ${name}. Load it with:  eval "$(${name} completion bash)"
${walk(words, { word: 'COMP_WORDS[i]', last: 'COMP_CWORD', from: 1 })}
_${name} () {
  local current=\${COMP_WORDS[COMP_CWORD]} command kind choices position
  local -a globals
  COMPREPLY=()
  [[ $current == = ]] && current=
  _${name}_walk
  case $kind in
    command|option|choice) mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current") ;;
    key) compopt -o nospace; mapfile -t COMPREPLY < <(compgen -S = -W "$choices" -- "$current") ;;
    model) mapfile -t COMPREPLY < <(compgen -W "$(${name} "\${globals[@]}" completion-models 2>/dev/null)" -- "$current") ;;
    directory) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
  esac
}
complete -F _${name} ${name}
`
}

export function zshScript (words: ProgramWords): string {
  const { name, commands } = words
  const described = commands.map(({ name, description }) => quote(`${name}:${description}`)).join(' ')
  return `#compdef ${name}
# zsh completion for ${name}. Load it with:  source <(${name} completion zsh)   (after compinit)
${walk(words, { word: 'words[i]', last: 'CURRENT', from: 2 })}
_${name} () {
  local current=$words[CURRENT] command kind choices position
  local -a globals described
  _${name}_walk
  case $kind in
    command)
      described=(${described})
      _describe command described ;;
    option|choice) compadd -- \${=choices} ;;
    key) compadd -S = -- \${=choices} ;;
    model) compadd -- \${(f)"$(${name} "\${globals[@]}" completion-models 2>/dev/null)"} ;;
    directory) _files -/ ;;
    file) _files ;;
  esac
}
compdef _${name} ${name}
`
}

/** A function that looks at the words before the cursor and sets command, position, kind, choices and globals. */
function walk ({ name, options, commands }: ProgramWords, shell: { word: string, last: string, from: number }): string {
  const values: string[] = []
  const value = (pattern: string, of: Value): void => { values.push(`    ${pattern}) kind=${of.kind}${'choices' in of ? ` choices=${quote(of.choices.join(' '))}` : ''} ;;`) }
  const takesValue = (option: OptionWords, command: string): void => {
    if (option.value !== undefined) value(option.names.map(flag => `${command}${quote(` ${flag}`)}`).join('|'), option.value)
  }
  for (const option of options) takesValue(option, '*')
  for (const command of commands) for (const option of command.options) takesValue(option, quote(command.name))
  for (const command of commands) for (const [position, of] of command.values.entries()) value(quote(`${command.name} ${position}`), of)
  const globalFlags = flags(options)
  return `_${name}_value () {
  kind= choices=
  case "$command $1" in
${values.join('\n')}
  esac
}
_${name}_walk () {
  local i word taken=
  command= position=0 globals=()
  for ((i = ${shell.from}; i < ${shell.last}; i++)); do
    word=\${${shell.word}}
    # bash takes --data=DIR for three words.
    [[ $word == = ]] && continue
    if [[ -n $taken ]]; then
      # The shell will make a path of it, and has not yet.
      case $word in '~'|'~/'*) word=$HOME\${word:1} ;; esac
      case $taken in --data|--api) globals+=("$taken" "$word") ;; esac
      taken=
    elif [[ $word == --data=* || $word == --api=* ]]; then
      globals+=("$word")
    elif [[ $word == -* ]]; then
      _${name}_value "$word"
      [[ -n $kind ]] && taken=$word
    elif [[ -z $command ]]; then
      command=$word
    else
      position=$((position + 1))
    fi
  done
  if [[ -n $taken ]]; then
    _${name}_value "$taken"
  elif [[ $current == -* ]]; then
    kind=option
    case $command in
${commands.map(command => `      ${quote(command.name)}) choices=${quote([...flags(command.options), ...globalFlags].join(' '))} ;;`).join('\n')}
      *) choices=${quote(globalFlags.join(' '))} ;;
    esac
  elif [[ -z $command ]]; then
    kind=command choices=${quote(commands.map(command => command.name).join(' '))}
  else
    _${name}_value "$position"
  fi
}`
}

function flags (options: OptionWords[]): string[] {
  return options.flatMap(({ names }) => names.filter(name => name.startsWith('--')))
}

/** For bash and zsh alike. */
function quote (text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
