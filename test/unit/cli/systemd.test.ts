import assert from 'node:assert/strict'
import { silentLogger, type Clock, type Logger } from '../../../src/base/index.ts'
import { Supervisor, supervisionOf } from '../../../src/cli/systemd.ts'

/** Time that only this test moves. */
class TestClock implements Clock {
  #timers: Array<{ fn: () => void, delayMs: number }> = []
  now = (): number => 0
  monotonic = (): number => 0
  setTimeout = (fn: () => void, delayMs: number): (() => void) => {
    const timer = { fn, delayMs }
    this.#timers.push(timer)
    return () => { this.#timers = this.#timers.filter(other => other !== timer) }
  }

  get waits (): number[] { return this.#timers.map(timer => timer.delayMs) }
  fire (): void { for (const { fn } of this.#timers.splice(0)) fn() }
}

const settled = async (): Promise<void> => { await new Promise(resolve => { setImmediate(resolve) }) }

describe('cli: the service manager', () => {
  const me = { pid: 42, ppid: 7 }

  it('is there when its socket is named, and has a watchdog for this process or its launcher only', () => {
    assert.equal(supervisionOf({}, me), undefined)
    assert.equal(supervisionOf({ NOTIFY_SOCKET: '', WATCHDOG_USEC: '1000000' }, me), undefined)
    const watchdog = (env: Record<string, string>): number | undefined => supervisionOf({ NOTIFY_SOCKET: '/run/n', ...env }, me)?.watchdogMs
    assert.equal(watchdog({}), undefined)
    assert.equal(watchdog({ WATCHDOG_USEC: '4000000' }), 4_000)
    assert.equal(watchdog({ WATCHDOG_USEC: '4000000', WATCHDOG_PID: '42' }), 4_000)
    assert.equal(watchdog({ WATCHDOG_USEC: '4000000', WATCHDOG_PID: '7' }), 4_000)
    assert.equal(watchdog({ WATCHDOG_USEC: '4000000', WATCHDOG_PID: '8' }), undefined)
    for (const wrong of ['0', '-1', '1e6', 'soon', '99999999999999999999']) assert.equal(watchdog({ WATCHDOG_USEC: wrong }), undefined, wrong)
  })

  it('hears that it lives only while the node answers, soon again after it did not, and last that it stops', async () => {
    const clock = new TestClock()
    const sent: string[][] = []
    const warnings: string[] = []
    let answers = false
    const logger: Logger = { ...silentLogger, warn: (_details, message) => { warnings.push(message) } }
    const supervisor = new Supervisor({
      supervision: { watchdogMs: 60_000, send: async lines => { sent.push(lines) } },
      check: async () => {
        if (!answers) throw new Error('no answer')
        return 'two\nlines\u0007'
      },
      clock,
      logger
    })
    await supervisor.start()
    assert.deepEqual([sent, warnings.length, clock.waits], [[], 1, [1_000]])
    answers = true
    clock.fire()
    await settled()
    assert.deepEqual([sent, clock.waits], [[['READY=1', 'WATCHDOG=1', 'STATUS=two lines\\x07']], [20_000]])
    clock.fire()
    await settled()
    assert.deepEqual(sent[1], ['WATCHDOG=1', 'STATUS=two lines\\x07'])
    answers = false
    clock.fire()
    await settled()
    assert.deepEqual([sent.length, clock.waits], [2, [1_000]])
    await supervisor.stop()
    await supervisor.stop()
    assert.deepEqual([sent.slice(2), clock.waits], [[['STOPPING=1', 'STATUS=Stopping']], []])
  })

  it('hears again soon what did not reach it, readiness first of all', async () => {
    const clock = new TestClock()
    const sent: string[][] = []
    const errors: string[] = []
    let isLost = true
    const supervisor = new Supervisor({
      supervision: {
        watchdogMs: 6_000,
        send: async lines => {
          if (isLost) throw new Error('no such program')
          sent.push(lines)
        }
      },
      check: async () => 'well',
      clock,
      logger: { ...silentLogger, error: (_details, message) => { errors.push(message) } }
    })
    const step = async (): Promise<void> => { clock.fire(); await settled() }
    await supervisor.start()
    await step()
    assert.deepEqual([sent, clock.waits, errors.length], [[], [500], 1])
    isLost = false
    await step()
    assert.deepEqual([sent, clock.waits], [[['READY=1', 'WATCHDOG=1', 'STATUS=well']], [2_000]])
    isLost = true
    await step()
    assert.deepEqual(clock.waits, [500])
    isLost = false
    await step()
    assert.deepEqual([sent[1], clock.waits], [['WATCHDOG=1', 'STATUS=well'], [2_000]])
    await supervisor.stop()
  })

  it('is told of in the log, once, when it cannot be reached, and the daemon goes on', async () => {
    const clock = new TestClock()
    const errors: object[] = []
    const supervision = supervisionOf({ NOTIFY_SOCKET: '/nowhere/at/all', PATH: '/nowhere' }, me)
    assert.ok(supervision !== undefined)
    const supervisor = new Supervisor({ supervision, check: async () => 'well', clock, logger: { ...silentLogger, error: details => { errors.push(details) } } })
    await supervisor.start()
    await supervisor.stop()
    assert.equal(errors.length, 1)
  })
})
