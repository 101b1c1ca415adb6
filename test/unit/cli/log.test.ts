import assert from 'node:assert/strict'
import { readFile, readdir } from 'node:fs/promises'
import { flagLayer, resolveConfig } from '../../../src/cli/config.ts'
import { LOG_COMPONENTS } from '../../../src/cli/log-levels.ts'
import { createLogger } from '../../../src/cli/log.ts'

/** What goes to stderr while `work` runs. */
function written (work: () => void): string[] {
  const lines: string[] = []
  const descriptor = Object.getOwnPropertyDescriptor(process.stderr, 'write')
  process.stderr.write = (text: string | Uint8Array) => lines.push(text.toString()) > 0
  try {
    work()
  } finally {
    if (descriptor === undefined) Reflect.deleteProperty(process.stderr, 'write')
    else Object.defineProperty(process.stderr, 'write', descriptor)
  }
  return lines
}

describe('cli: the log', () => {
  const log = (...set: string[]): Parameters<typeof createLogger>[0] => resolveConfig([flagLayer({ set })]).daemon.log

  it('has a level for all and others for parts, as JSON lines that say which part', () => {
    const lines = written(() => {
      const logger = createLogger(log('log.level=warn,transfer=debug,network=error', 'log.format=json'), { json: false })
      for (const component of ['exchange', 'network', 'storage']) {
        const child = logger.child({ component })
        for (const level of ['debug', 'info', 'warn', 'error'] as const) child[level]({ cid: 'bafy' }, level)
      }
      logger.info({}, 'info')
      logger.warn({}, 'warn')
    }).map(line => JSON.parse(line) as { component?: string, msg: string, time: string, level: number })
    assert.deepEqual(lines.map(({ component, msg }) => [component, msg]), [
      ['exchange', 'debug'], ['exchange', 'info'], ['exchange', 'warn'], ['exchange', 'error'],
      ['network', 'error'],
      ['storage', 'warn'], ['storage', 'error'],
      [undefined, 'warn']
    ])
    for (const { time, level } of lines) assert.ok(!Number.isNaN(Date.parse(time)) && level >= 20)
  })

  it('is info without a word, also for the parts that were not named', () => {
    const lines = written(() => {
      for (const settings of [log('log.format=json'), log('log.level=api=debug', 'log.format=json')]) {
        const logger = createLogger(settings, { json: false })
        for (const component of ['api', 'loads']) logger.child({ component }).debug({}, component)
        logger.child({ component: 'loads' }).info({}, 'info')
      }
    }).map(line => (JSON.parse(line) as { msg: string }).msg)
    assert.deepEqual(lines, ['info', 'api', 'info'])
  })

  it('refuses what it does not know, and names the parts there are', () => {
    for (const wrong of ['loud', 'info,transfer', 'info,warn', 'transfer=loud', 'trasnfer=debug', 'info,,', '', 'constructor=debug', '__proto__=debug']) {
      assert.throws(() => log(`log.level=${wrong}`), { name: 'ConfigError', message: /replication, router/ }, wrong)
    }
  })

  it('knows the parts of the program, all of them and no others', async () => {
    const root = new URL('../../../src/', import.meta.url)
    const files = (await readdir(root, { recursive: true })).filter(file => file.endsWith('.ts'))
    const used = new Set<string>()
    for (const file of files) for (const [, name = ''] of (await readFile(new URL(file, root), 'utf8')).matchAll(/\.child\(\{ component: '([a-z-]+)' \}\)/g)) used.add(name)
    assert.deepEqual([...used].sort(), [...LOG_COMPONENTS])
    const explained = await readFile(new URL('../../../config/default.jsonc', import.meta.url), 'utf8')
    for (const name of LOG_COMPONENTS) assert.match(explained, new RegExp(`^ *// .*\\b${name}\\b`, 'm'), name)
  })
})
