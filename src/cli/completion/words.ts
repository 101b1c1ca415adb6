import type { Argument, Command, Option } from 'commander'

/** What can stand for a value. */
export type Value =
  { kind: 'file' | 'directory' | 'model' | 'anything' } |
  { kind: 'choice', choices: readonly string[] } |
  /** `key=`, after which the user goes on. */
  { kind: 'key', choices: readonly string[] }

export interface OptionWords {
  /** `--output`, and the short form if there is one. */
  names: string[]
  description: string
  /** Undefined: it takes none. */
  value: Value | undefined
}

export interface CommandWords {
  name: string
  description: string
  options: OptionWords[]
  /** In order. */
  values: Value[]
}

export interface ProgramWords {
  name: string
  /** May stand anywhere. */
  options: OptionWords[]
  commands: CommandWords[]
}

/** What a shell needs to know of the command line, from the commands themselves. `configKeys` complete `--set`. */
export function wordsOf (program: Command, configKeys: readonly string[]): ProgramWords {
  const help = program.createHelp()
  const optionWords = (options: Option[]): OptionWords[] => options.map(option => ({
    names: [option.long, option.short].filter(name => name !== undefined),
    description: option.description,
    value: option.required || option.optional ? valueOf(option.long === '--set' ? configKeys : option.argChoices, /<([^>]+)>/.exec(option.flags)?.[1] ?? '', option.long === '--set') : undefined
  }))
  return {
    name: program.name(),
    options: optionWords(help.visibleOptions(program)),
    commands: help.visibleCommands(program).filter(command => command.name() !== 'help').map(command => ({
      name: command.name(),
      description: command.description(),
      options: optionWords(help.visibleOptions(command).filter(option => option.long !== '--help')),
      values: command.registeredArguments.map((argument: Argument) => valueOf(argument.argChoices, argument.name(), false))
    }))
  }
}

/** By its name in the help: `<dir>`, `<file>`, `<path>`, `<model>`. */
function valueOf (choices: readonly string[] | undefined, name: string, isKey: boolean): Value {
  if (choices !== undefined) return { kind: isKey ? 'key' : 'choice', choices }
  if (name === 'dir') return { kind: 'directory' }
  if (name === 'file' || name === 'path') return { kind: 'file' }
  return { kind: name === 'model' ? 'model' : 'anything' }
}
