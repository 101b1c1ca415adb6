import type { OptionWords, ProgramWords, Value } from './words.ts'

/**
 * The script for fish: one line for each command, option and value. fish's own __fish_seen_subcommand_from and
 * __fish_use_subcommand take the value of an option for a command, so the script finds the command by itself. Nothing that the user
 * has typed is evaluated.
 */
export function fishScript ({ name, options, commands }: ProgramWords): string {
  const lines = [`# fish completion for ${name}. Load it with:  ${name} completion fish | source`, ...functions(name, options), `complete -c ${name} -f`]
  const add = (condition: string | undefined, rest: string): void => { lines.push(`complete -c ${name}${condition === undefined ? '' : ` -n ${quote(condition)}`} ${rest}`) }
  const option = (condition: string | undefined, { names, description, value }: OptionWords): void => {
    const flags = names.map(flag => flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`).join(' ')
    add(condition, `${flags}${value === undefined ? '' : ` -r${suggestions(value, name)}`} -d ${quote(description)}`)
  }
  for (const each of options) option(undefined, each)
  for (const command of commands) {
    add(`__${name}_in ''`, `-a ${command.name} -d ${quote(command.description)}`)
    const inside = `__${name}_in ${command.name}`
    for (const each of command.options) option(inside, each)
    for (const value of command.values) if (value.kind !== 'anything') add(inside, suggestions(value, name).trim())
  }
  return `${lines.join('\n')}\n`
}

/** The command among the words before the cursor, and the options that say which daemon to ask for models. */
function functions (name: string, options: OptionWords[]): string[] {
  const valued = options.filter(({ value }) => value !== undefined).flatMap(({ names }) => names)
  return `function __${name}_command
    set -l words (commandline -opc)
    set -e words[1]
    set -l taken no
    for word in $words
        if test $taken = yes
            set taken no
        else if contains -- $word ${valued.join(' ')}
            set taken yes
        else if not string match -q -- '-*' $word
            echo $word
            return
        end
    end
    echo
end
function __${name}_in
    test "$argv[1]" = (__${name}_command)
end
function __${name}_globals
    set -l taken
    for word in (commandline -opc)
        if set -q taken[1]
            echo $taken
            if test $word = '~'; or string match -q -- '~/*' $word
                echo $HOME(string sub -s 2 -- $word)
            else
                echo $word
            end
            set taken
        else if contains -- $word --data --api
            set taken $word
        else if string match -q -r -- '^--(data|api)=' $word
            echo $word
        end
    end
end`.split('\n')
}

function suggestions (value: Value, name: string): string {
  switch (value.kind) {
    case 'choice': return ` -a ${quote(value.choices.join(' '))}`
    case 'key': return ` -a ${quote(value.choices.map(key => `${key}=`).join(' '))}`
    case 'model': return ` -a ${quote(`(${name} (__${name}_globals) completion-models 2>/dev/null)`)}`
    case 'directory': return ` -a ${quote('(__fish_complete_directories)')}`
    case 'file': return ' -F'
    case 'anything': return ''
  }
}

function quote (text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}
