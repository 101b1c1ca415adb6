/** docs/CLI.md from the commands themselves and the words in template.md beside this file. */
import { readFile } from 'node:fs/promises'
import type { Command, Option } from 'commander'
import { EXIT } from '../../src/cli/exit-codes.ts'
import { LOG_COMPONENTS, LOG_NAMES } from '../../src/cli/log-levels.ts'
import { createProgram } from '../../src/cli/program.ts'

const EXIT_CODES: Record<keyof typeof EXIT, string> = {
  done: 'done',
  failed: 'failed; `drain`: something is left; `doctor`: something fails; `daemon`: also an address that is taken or not there yet, so that a service manager tries again',
  usage: 'wrong usage or configuration',
  notFound: 'not found, or no provider',
  verification: 'verification failed',
  noDaemon: 'no daemon',
  interrupted: 'interrupted'
}

export async function renderCliDocs (): Promise<string> {
  const program = createProgram()
  const help = program.createHelp()
  const parts: Record<string, string> = {
    written: '<!-- Written by `npm run docs:cli` from the commands and scripts/cli-docs/template.md: change those. -->',
    'global options': optionTable(help.visibleOptions(program)),
    commands: help.visibleCommands(program).filter(command => command.name() !== 'help').map(describe).join('\n\n'),
    'exit codes': table(['code', 'means'], Object.entries(EXIT_CODES).map(([name, means]) => [String(EXIT[name as keyof typeof EXIT]), means])),
    'log components': LOG_COMPONENTS.map(name => `\`${name}\``).join(', '),
    'log names': Object.entries(LOG_NAMES).map(([name, component]) => `\`${name}\` is \`${component}\``).join(', ')
  }
  const template = await readFile(new URL('template.md', import.meta.url), 'utf8')
  return template.replaceAll(/\{\{([a-z ]+)\}\}/g, (_, name: string) => {
    const part = parts[name]
    if (part === undefined) throw new Error(`template.md wants ${JSON.stringify(name)}, which is not made`)
    return part
  })
}

function describe (command: Command): string {
  const help = command.createHelp()
  const usage = help.commandUsage(command).replace(' [options]', help.visibleOptions(command).some(isOwn) ? ' [options]' : '')
  const rows = [
    ...command.registeredArguments.map(argument => [`\`${argument.required ? `<${argument.name()}>` : `[${argument.name()}]`}\``, help.argumentDescription(argument)]),
    ...help.visibleOptions(command).filter(isOwn).map(optionRow)
  ]
  const more = afterText(command)
  return [
    `### shoal ${command.name()}`,
    `\`${usage.replace('shoal [options]', 'shoal')}\`: ${command.description()}.`,
    ...rows.length === 0 ? [] : [table(['', 'means'], rows)],
    ...more === '' ? [] : [`\`\`\`text\n${more}\n\`\`\``]
  ].join('\n\n')
}

/** What `--help` prints below the options. */
function afterText (command: Command): string {
  let written = ''
  const before = command.configureOutput()
  command.configureOutput({ ...before, writeOut: text => { written += text } }).outputHelp()
  return written.slice(written.indexOf(command.helpInformation()) + command.helpInformation().length).trim()
}

function isOwn ({ long }: Option): boolean {
  return long !== '--help'
}

function optionTable (options: Option[]): string {
  return table(['option', 'means'], options.map(optionRow))
}

function optionRow (option: Option): string[] {
  return [`\`${option.flags}\``, `${option.description}${option.argChoices === undefined ? '' : `; one of ${option.argChoices.join(', ')}`}`]
}

function table (heads: string[], rows: string[][]): string {
  const line = (cells: string[]): string => `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(heads), line(heads.map(() => '---')), ...rows.map(line)].join('\n')
}
