import assert from 'node:assert/strict'
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { once } from 'node:events'
import { promisify } from 'node:util'

const CHECKOUT = new URL('../..', import.meta.url).pathname.replace(/\/$/, '')
const MACHINE = new URL('systemd/machine.sh', import.meta.url).pathname
const WATCHDOG_SECONDS = 4
const PLACES = ['/opt/shoal', '/var/lib/shoal', '/run/systemd/system/shoal.service', '/etc/shoal/config.jsonc']
const wereThere = PLACES.map(existsSync)
const run = promisify(execFile)

interface Shown { ActiveState: string, SubState: string, MainPID: number, NRestarts: number, StatusText: string, Result: string }

/** The unit as it is shipped, under a real systemd in namespaces of its own. */
describe('systemd', function () {
  this.timeout(120_000)
  let machine: ChildProcess
  let first = ''
  let log = ''

  /** A command on that machine. */
  const on = async (...command: string[]): Promise<string> => (await run('nsenter', ['-t', first, '-p', '-m', '-u', '-i', '-C', '-n', ...command], { timeout: 20_000 })).stdout.trim()
  const show = async (): Promise<Shown> => {
    const fields = Object.fromEntries((await on('systemctl', 'show', 'shoal', '-p', 'ActiveState,SubState,MainPID,NRestarts,StatusText,Result')).split('\n').map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))
    return { ...fields, MainPID: Number(fields.MainPID), NRestarts: Number(fields.NRestarts) } as Shown
  }
  const until = async (what: string, holds: (now: Shown) => boolean | Promise<boolean>): Promise<Shown> => {
    const deadline = performance.now() + 30_000
    for (;;) {
      const now = first === '' ? undefined : await show().catch(() => undefined)
      if (now !== undefined && await holds(now)) return now
      if (performance.now() > deadline) throw new Error(`waited in vain: ${what}; ${JSON.stringify(now)}\n${log}\n${await on('journalctl', '-u', 'shoal', '--no-pager').catch(String)}`)
      await new Promise(resolve => { setTimeout(resolve, 50) })
    }
  }
  const active = (now: Shown): boolean => now.ActiveState === 'active'
  const signal = async (name: string): Promise<number> => {
    const { MainPID } = await show()
    assert.ok(MainPID > 1)
    await on('kill', `-${name}`, String(MainPID))
    return MainPID
  }

  before(async function () {
    const needed = ['/lib/systemd/systemd', '/usr/bin/systemd-notify', '/usr/bin/nsenter', '/usr/bin/unshare']
    if (process.getuid?.() !== 0 || !needed.every(existsSync)) this.skip()
    machine = spawn('bash', [MACHINE, CHECKOUT, String(WATCHDOG_SECONDS)], { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const output of [machine.stdout, machine.stderr]) output?.setEncoding('utf8').on('data', (text: string) => { log += text })
    // The script becomes unshare, whose one child becomes process 1 of the machine.
    const deadline = performance.now() + 15_000
    while (first === '') {
      if (machine.exitCode !== null || performance.now() > deadline) throw new Error(`the machine did not start: ${log}`)
      const child = (await readFile(`/proc/${machine.pid}/task/${machine.pid}/children`, 'utf8').catch(() => '')).trim()
      if (/^\d+$/.test(child) && (await readFile(`/proc/${child}/comm`, 'utf8').catch(() => '')).trim() === 'systemd') first = child
      else await new Promise(resolve => { setTimeout(resolve, 50) })
    }
  })
  after(async () => {
    if (machine === undefined) return
    const ended = machine.exitCode !== null ? Promise.resolve() : once(machine, 'close')
    machine.kill('SIGKILL')
    await ended
  })

  it('is active only once the API answers, and says how it goes', async () => {
    const states = new Set<string>()
    await until('active', async now => {
      states.add(now.ActiveState)
      return active(now)
    })
    const status = JSON.parse(await on('/opt/shoal/node_modules/.bin/node', '/opt/shoal/src/cli/bin.js', '--data', '/var/lib/shoal', 'status', '--json')) as { problems: string[] }
    assert.deepEqual(status.problems, [])
    assert.ok(states.has('activating'), [...states].join())
    const told = await until('a status', now => now.StatusText !== '')
    assert.match(told.StatusText, /^0 peers, 0 models \(0 complete, 0 B\), 0 loads running$/)
  })

  it('lives longer than the watchdog allows the silent', async () => {
    const before = await show()
    const end = performance.now() + 3 * WATCHDOG_SECONDS * 1000
    await until('three watchdog periods', () => performance.now() > end)
    const { MainPID, NRestarts } = await show()
    assert.deepEqual([MainPID, NRestarts], [before.MainPID, before.NRestarts])
  })

  it('comes back after a kill -9, and after it hung', async () => {
    for (const how of ['KILL', 'STOP']) {
      const { NRestarts } = await show()
      const old = await signal(how)
      const now = await until(`a restart after ${how}`, now => active(now) && now.MainPID !== old)
      assert.equal(now.NRestarts, NRestarts + 1)
    }
    assert.match(await on('journalctl', '-u', 'shoal', '--no-pager', '-q').catch(() => ''), /ready: peer/)
  })

  it('stops within five seconds, in order', async () => {
    await until('active', active)
    const before = performance.now()
    await on('systemctl', 'stop', 'shoal')
    const took = performance.now() - before
    assert.ok(took < 5_000, `${took} ms`)
    const { Result, ActiveState } = await show()
    assert.deepEqual([ActiveState, Result], ['inactive', 'success'])
  })

  it('is not started again for a wrong configuration', async () => {
    await on('sh', '-c', 'echo \'{ "storage": { "qouta": 1 } }\' > /etc/shoal/config.jsonc')
    await on('systemctl', 'start', 'shoal').catch(() => undefined)
    const failed = await until('failed', now => now.ActiveState === 'failed')
    assert.equal(failed.Result, 'exit-code')
  })

  it('has left nothing on this machine', async () => {
    assert.deepEqual(PLACES.map(existsSync), wereThere)
  })
})
