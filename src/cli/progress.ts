import { SingleBar, type GenericFormatter } from 'cli-progress'
import { PROGRESS_PER_SECOND_MAX } from '../base/index.ts'
import { count, duration, percent, rate, size } from './format.ts'

export interface ProgressUpdate {
  bytesDone: number
  bytesTotal: number
  /** Bytes per second; worked out from the updates when not given. */
  rate?: number
  secondsLeft?: number
  peers?: number
  /** Of a model's replication: how many shards have what they need, and how many replicas the worst one has. */
  shards?: number
  shardsDone?: number
  replicasMin?: number
  target?: number
  /** Shown instead of figures while there are none: "looking for a provider". */
  waiting?: string
}

/** Without a terminal, a line this often: enough to see that it lives, and logs stay short. */
const PLAIN_INTERVAL_MS = 5_000
/** A line that says the same again comes this often: what waits for others may do so for days. */
const UNCHANGED_INTERVAL_MS = 60_000
const RATE_WINDOW_MS = 3_000
const BAR_WIDTH = 24

/**
 * Progress on stderr: a bar on a terminal, a line now and then elsewhere (a JSON one with --json), nothing with
 * --quiet. Starts to show at the first update.
 */
export class Progress {
  readonly #label: string
  readonly #quiet: boolean
  readonly #json: boolean
  readonly #rate = new RateWindow()
  #bar: SingleBar | undefined
  #latest: ProgressUpdate | undefined
  #toldAt = performance.now()
  /** The last line, and when it was first told. */
  #told: { text: string, since: number } | undefined

  constructor (label: string, options: { quiet: boolean, json: boolean }) {
    this.#label = label
    this.#quiet = options.quiet
    this.#json = options.json
  }

  update (update: ProgressUpdate): void {
    if (this.#quiet) return
    const measured = this.#rate.measure(update.bytesDone)
    const speed = update.rate ?? measured
    const left = update.secondsLeft ?? (speed > 0 ? (update.bytesTotal - update.bytesDone) / speed : undefined)
    this.#latest = { ...update, rate: speed, secondsLeft: left }
    if (process.stderr.isTTY && !this.#json) this.#draw(this.#latest)
    else this.#tell(this.#latest)
  }

  /** Takes the bar away. */
  stop (): void {
    this.#bar?.stop()
    this.#bar = undefined
  }

  #draw (update: ProgressUpdate): void {
    if (this.#bar === undefined) {
      const format: GenericFormatter = () => this.#latest === undefined ? '' : `${this.#label} ${bar(this.#latest)} ${describe(this.#latest)}`
      this.#bar = new SingleBar({
        format, fps: PROGRESS_PER_SECOND_MAX, stream: process.stderr, clearOnComplete: true, hideCursor: true, gracefulExit: false, forceRedraw: true, linewrap: null
      })
      const onExit = (): void => { this.stop() } // the cursor must come back whatever happens
      process.once('exit', onExit)
      this.#bar.start(update.bytesTotal, update.bytesDone)
    }
    this.#bar.setTotal(update.bytesTotal)
    this.#bar.update(update.bytesDone)
  }

  #tell (update: ProgressUpdate): void {
    const now = performance.now()
    if (now - this.#toldAt < PLAIN_INTERVAL_MS) return
    if (this.#json) {
      process.stderr.write(`${JSON.stringify({ progress: update })}\n`)
    } else {
      const text = describe(update)
      const same = this.#told?.text === text ? this.#told : undefined
      if (same !== undefined && now - this.#toldAt < UNCHANGED_INTERVAL_MS) return
      process.stderr.write(`${this.#label}: ${text}${same === undefined ? '' : ` (for ${duration((now - same.since) / 1000)} now)`}\n`)
      this.#told = same ?? { text, since: now }
    }
    this.#toldAt = now
  }
}

function bar ({ bytesDone, bytesTotal, waiting }: ProgressUpdate): string {
  const filled = waiting !== undefined ? 0 : bytesTotal === 0 ? BAR_WIDTH : Math.floor(BAR_WIDTH * Math.min(1, bytesDone / bytesTotal))
  return `[${'='.repeat(filled)}${' '.repeat(BAR_WIDTH - filled)}]`
}

function describe ({ bytesDone, bytesTotal, rate: speed, secondsLeft, peers, shards, shardsDone, replicasMin, target, waiting }: ProgressUpdate): string {
  if (waiting !== undefined) return waiting
  const parts = [`${percent(bytesDone, bytesTotal)} of ${size(bytesTotal)}`]
  if (speed !== undefined && speed > 0) parts.push(rate(speed))
  if (secondsLeft !== undefined && Number.isFinite(secondsLeft)) parts.push(`${duration(secondsLeft)} left`)
  if (shards !== undefined && shardsDone !== undefined) parts.push(`${shardsDone}/${count(shards, 'shard')}`)
  if (replicasMin !== undefined && target !== undefined) parts.push(`fewest ${replicasMin}/${count(target, 'replica')}`)
  if (peers !== undefined) parts.push(count(peers, 'peer'))
  return parts.join(', ')
}

/** Bytes per second over the last few seconds. */
class RateWindow {
  #samples: Array<{ at: number, bytes: number }> = []

  measure (bytes: number): number {
    const at = performance.now()
    const last = this.#samples[this.#samples.length - 1]
    // Ten samples a second say as much as a thousand.
    if (last === undefined || at - last.at >= 100) this.#samples.push({ at, bytes })
    while (this.#samples.length > 2 && at - (this.#samples[0]?.at ?? at) > RATE_WINDOW_MS) this.#samples.shift()
    const first = this.#samples[0]
    if (first === undefined || at - first.at < 100) return 0
    return Math.max(0, (bytes - first.bytes) * 1000 / (at - first.at))
  }
}
