import type { OptionWords, ProgramWords, Value } from './words.ts'

/** The script for fish: one line for each command, option and value. */
export function fishScript ({ name, options, commands }: ProgramWords): string {
  const lines = [`# fish completion for ${name}. Load it with:  ${name} completion fish | source`, `complete -c ${name} -f`]
  const add = (condition: string | undefined, rest: string): void => { lines.push(`complete -c ${name}${condition === undefined ? '' : ` -n ${quote(condition)}`} ${rest}`) }
  const option = (condition: string | undefined, { names, description, value }: OptionWords): void => {
    const flags = names.map(flag => flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`).join(' ')
    add(condition, `${flags}${value === undefined ? '' : ` -r${suggestions(value, name)}`} -d ${quote(description)}`)
  }
  for (const each of options) option(undefined, each)
  for (const command of commands) {
    add('__fish_use_subcommand', `-a ${command.name} -d ${quote(command.description)}`)
    const inside = `__fish_seen_subcommand_from ${command.name}`
    for (const each of command.options) option(inside, each)
    for (const value of command.values) if (value.kind !== 'anything') add(inside, suggestions(value, name).trim())
  }
  return `${lines.join('\n')}\n`
}

function suggestions (value: Value, name: string): string {
  switch (value.kind) {
    case 'choice': return ` -a ${quote(value.choices.join(' '))}`
    case 'key': return ` -a ${quote(value.choices.map(key => `${key}=`).join(' '))}`
    case 'model': return ` -a ${quote(`(${name} completion-models 2>/dev/null)`)}`
    case 'directory': return ` -a ${quote('(__fish_complete_directories)')}`
    case 'file': return ' -F'
    case 'anything': return ''
  }
}

function quote (text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}
