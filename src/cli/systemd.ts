/**
 * What a service manager is told about the daemon: sd_notify(3), for `Type=notify` and a watchdog. Outside systemd
 * (no $NOTIFY_SOCKET) nothing here does anything.
 *
 * The protocol is a datagram to a Unix socket, and Node opens no such sockets; what npm has for it is built natively at
 * install. So the program that systemd brings for this, systemd-notify, sends it: one short process per message, which is
 * one each third of a watchdog period. It needs NotifyAccess=all in the unit, because the message comes from a child.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { asError, systemClock, type Clock, type Logger } from '../base/index.ts'
import { printable } from './format.ts'

type Environment = Record<string, string | undefined>

export interface Supervision {
  /** How often the watchdog wants to hear; undefined: there is none, or it is another process's. */
  watchdogMs: number | undefined
  send: (lines: string[]) => Promise<void>
}

export interface SupervisorInit {
  supervision: Supervision
  /** Resolves with a line for people when the node answers; rejects when it does not. */
  check: (signal: AbortSignal) => Promise<string>
  clock?: Clock
  logger: Logger
}

/** A message is taken at once by a service manager that lives. */
const SEND_TIMEOUT_MS = 5_000
/** Without a watchdog, for `systemctl status` alone. */
const STATUS_INTERVAL_MS = 60_000
/** One message may be lost, and found out to be, before the watchdog loses patience. */
const BEATS_PER_PERIOD = 3
/** After the node did not answer, or the message did not go out: soon, so that a short stall is no restart. */
const RETRY_MS_MAX = 1_000
/** systemctl shows one line. */
const STATUS_CHARACTERS_MAX = 200

/** What the environment says about a service manager; undefined when there is none. */
export function supervisionOf (env: Environment, process: { pid: number, ppid: number }): Supervision | undefined {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: usec, WATCHDOG_PID: pid, PATH } = env
  if (socket === undefined || socket === '') return undefined
  // The launcher that found a newer Node is the process systemd knows.
  const ours = pid === undefined || pid === String(process.pid) || pid === String(process.ppid)
  const watchdogMs = ours && usec !== undefined && /^[1-9]\d{0,15}$/.test(usec) ? Number(usec) / 1000 : undefined
  return {
    watchdogMs,
    send: async lines => {
      await promisify(execFile)('systemd-notify', lines, { env: { NOTIFY_SOCKET: socket, ...(PATH === undefined ? {} : { PATH }) }, timeout: SEND_TIMEOUT_MS, killSignal: 'SIGKILL' })
    }
  }
}

/**
 * Tells that the node is ready once it answers, then again and again that it lives, for as long as it answers: a node
 * that does not is restarted by the watchdog.
 */
export class Supervisor {
  readonly #init: SupervisorInit
  readonly #clock: Clock
  readonly #intervalMs: number
  readonly #stopping = new AbortController()
  #cancel: () => void = () => undefined
  #sending: Promise<unknown> = Promise.resolve()
  #told = false

  constructor (init: SupervisorInit) {
    this.#init = init
    this.#clock = init.clock ?? systemClock
    const { watchdogMs } = init.supervision
    this.#intervalMs = watchdogMs === undefined ? STATUS_INTERVAL_MS : watchdogMs / BEATS_PER_PERIOD
  }

  /** Resolves when readiness was told, or could not be: it is told again then until it is out. */
  async start (): Promise<void> {
    await this.#beat(['READY=1'])
  }

  /** The last thing said is that the daemon stops; resolves when that is out. */
  async stop (): Promise<void> {
    if (this.#stopping.signal.aborted) return
    this.#stopping.abort()
    this.#cancel()
    await this.#send(['STOPPING=1', 'STATUS=Stopping'])
  }

  async #beat (first: string[]): Promise<void> {
    const { supervision, check, logger } = this.#init
    const { signal } = this.#stopping
    let nextMs = Math.min(RETRY_MS_MAX, this.#intervalMs / 4)
    try {
      // Half an interval for the answer: the message comes well before the watchdog loses patience.
      const status = await check(AbortSignal.any([signal, AbortSignal.timeout(Math.max(1, Math.floor(this.#intervalMs / 2)))]))
      if (signal.aborted) return
      if (await this.#send([...first, ...(supervision.watchdogMs === undefined ? [] : ['WATCHDOG=1']), statusLine(status)])) {
        first = []
        nextMs = this.#intervalMs
      }
    } catch (error) {
      if (signal.aborted) return
      logger.warn({ error: asError(error).message }, 'the node does not answer; the service manager is not told that it lives')
    }
    if (signal.aborted) return
    this.#cancel = this.#clock.setTimeout(() => { void this.#beat(first) }, nextMs)
  }

  /**
   * In order, one at a time; tells whether it went out. A message that cannot be sent is told in the log once, and is no reason
   * to stop working.
   */
  async #send (lines: string[]): Promise<boolean> {
    const { supervision, logger } = this.#init
    const sent = this.#sending.then(async () => { await supervision.send(lines) }).then(() => true, error => {
      if (this.#told) return false
      this.#told = true
      logger.error({ error: asError(error).message }, 'cannot tell the service manager how it goes, and tries on: is systemd-notify installed, and does the unit say NotifyAccess=all?')
      return false
    })
    this.#sending = sent
    return await sent
  }
}

function statusLine (text: string): string {
  return `STATUS=${printable(text.replaceAll(/\s+/g, ' ')).slice(0, STATUS_CHARACTERS_MAX)}`
}
