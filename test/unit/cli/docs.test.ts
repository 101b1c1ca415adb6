import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import * as base from '../../../src/base/index.ts'
import { renderCliDocs } from '../../../scripts/cli-docs/render.ts'
import { createProgram } from '../../../src/cli/program.ts'

const read = async (path: string): Promise<string> => await readFile(new URL(`../../../${path}`, import.meta.url), 'utf8')

describe('docs', () => {
  it('ERRORS.md has a line for each class, with its true kind', async () => {
    const text = await read('docs/ERRORS.md')
    const exit = { usage: 2, 'not-found': 3, verification: 4, 'no-daemon': 5, aborted: 130, failed: 1 }
    let classes = 0
    for (const [name, value] of Object.entries(base)) {
      if (!name.endsWith('Error') || name === 'ShoalError' || typeof value !== 'function' || !(value.prototype instanceof base.ShoalError)) continue
      classes++
      const error = new (value as new (message: string) => base.ShoalError)('')
      assert.equal(error.name, name)
      const line = text.split('\n').find(line => line.startsWith(`| \`${name}\` |`))
      assert.ok(line?.endsWith(`| ${exit[error.kind]} | ${error.retryable ? 'yes' : 'no'} | ${error.fault} |`), `${name} has no line in docs/ERRORS.md, or a wrong one: ${line}`)
    }
    assert.ok(classes > 30)
  })

  it('CLI.md is what the commands say now', async () => {
    assert.ok(await read('docs/CLI.md') === await renderCliDocs(), 'docs/CLI.md is not what the commands say now: npm run docs:cli')
  })

  it('CLI.md names every command and option, and what each prints as JSON', async () => {
    const text = await read('docs/CLI.md')
    const program = createProgram()
    const json = text.slice(text.indexOf('## JSON'), text.indexOf('## Environment'))
    for (const command of program.createHelp().visibleCommands(program).filter(command => command.name() !== 'help')) {
      assert.match(text, new RegExp(`^### shoal ${command.name()}$`, 'm'), command.name())
      for (const option of command.options) if (option.long !== '--help') assert.ok(text.includes(option.long ?? ''), `${command.name()} ${option.long}`)
      assert.match(json, new RegExp(`^\\| [^|]*\`${command.name()}\``, 'm'), `the JSON of ${command.name()} is told nowhere: add a line to scripts/cli-docs/template.md, then npm run docs:cli`)
    }
  })
})
