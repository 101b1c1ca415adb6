import { DiskError, MiB, NodeStoppedError, REPLICA_DOUBTS_MAX, asError, sleep, type Clock, type Logger, type Random } from '../base/index.ts'
import type { ModelStore, StoredFile } from '../storage/store.ts'
import { BadPlaces, sizeOnDisk } from './bad-places.ts'
import type { Ledger } from './ledger.ts'
import type { PlacedShard } from './model-shards.ts'
import type { ScrubStatus } from './types.ts'
import { VolumeTrust } from './volume-trust.ts'

export interface ScrubberComponents {
  store: ModelStore
  clock: Clock
  random: Random
  logger: Logger
  /** Remembers what was looked at when, so that a node that is restarted often gets around all the same. */
  ledger: Pick<Ledger, 'state' | 'setState' | 'scrubbed' | 'setScrubbed'>
}

export interface ScrubberInit {
  /** Each block is re-hashed once in this time. */
  periodMs: number
  /** With so many bad places in one pass the volume is suspect. */
  suspectBlocks: number
}

const COMPLETED = 'scrubCompletedAt'
/** Milliseconds since 1970; 0: it is not. */
const SUSPECT = 'volumeSuspectAt'
/** Checked in one go, then others get a turn. */
const STEP_BYTES = 16 * MiB
/** A disk that has to be read faster than that for its period is read later than the period says, and loads stay fast. */
const BYTES_PER_SECOND_MAX = 64 * MiB
/** A pass takes this share of the period at least, and the whole of it at most, so that nodes that started together drift apart. */
const PASS_SHARE_MIN = 0.8
/** Between two passes at least, however short the period is. */
const PAUSE_MS = 10
const SLEEP_MS_MAX = 3_600_000
/** When the pass that might have cleared the volume could not look at all of it. */
const PROBATION_AGAIN_MS = 600_000

/**
 * Re-hashes everything that is recorded, again and again, each block once within the period, and single shards at once
 * when somebody doubts them. Never two at a time. What is bad is withdrawn by the store, which tells everybody.
 *
 * Several bad places in one pass make the volume suspect, and it stays so over restarts. Only the first whole pass after a
 * restart clears it, when it finds nothing bad: somebody had a chance to look at the disk, and then the disk was looked at.
 */
export class Scrubber {
  readonly #components: ScrubberComponents
  readonly #init: ScrubberInit
  readonly #stopping = new AbortController()
  /** The disk is one: whoever re-hashes waits for who does. */
  #turn: Promise<void> = Promise.resolve()
  #loop: Promise<void> | undefined
  readonly #doubted = new Set<string>()
  #doubts: Promise<void> = Promise.resolve()
  #doubtsAt = -Infinity
  #bytesDone = 0
  #bytesTotal = 0
  #bad = 0
  #lastCompletedAt: number | undefined
  readonly #places = new BadPlaces()
  readonly #trust: VolumeTrust
  #unsaved = false

  constructor (components: ScrubberComponents, init: ScrubberInit) {
    this.#components = components
    this.#init = init
    this.#lastCompletedAt = components.ledger.state(COMPLETED)
    const suspectAt = components.ledger.state(SUSPECT) ?? 0
    this.#trust = new VolumeTrust(suspectAt === 0 ? undefined : suspectAt, init.suspectBlocks)
  }

  start (): void {
    this.#loop = this.#run().catch(error => {
      if (!this.#stopping.signal.aborted) this.#components.logger.error({ error: asError(error).message }, 'the scrub ended')
    })
  }

  async stop (): Promise<void> {
    this.#stopping.abort(new NodeStoppedError('the node is stopping'))
    await this.#loop
    await this.#doubts
    await this.#turn
  }

  status (): ScrubStatus {
    return { bytesDone: this.#bytesDone, bytesTotal: this.#bytesTotal, bad: this.#bad, lastCompletedAt: this.#lastCompletedAt, suspectSince: this.#trust.suspectSince }
  }

  get suspect (): boolean { return this.#trust.suspect }

  /** Soon, no faster than a pass; once, however often it is asked for meanwhile. */
  shard (model: string, shard: PlacedShard): void {
    const key = `${model}/${shard.number}`
    if (this.#doubted.has(key) || this.#doubted.size >= REPLICA_DOUBTS_MAX || this.#stopping.signal.aborted) return
    this.#doubted.add(key)
    this.#doubts = this.#doubts.then(async () => { await this.#look(shard) }).catch(error => { this.#failed(error) }).finally(() => { this.#doubted.delete(key) })
  }

  async #look ({ file, first, count }: PlacedShard): Promise<void> {
    const { clock } = this.#components
    for (const step of stepsOf(file, first, count)) {
      await this.#until(this.#doubtsAt)
      this.#doubtsAt = Math.max(this.#doubtsAt, clock.monotonic()) + step.bytes * 1_000 / BYTES_PER_SECOND_MAX
      await this.#check(file, step.first, step.count)
    }
  }

  async #run (): Promise<void> {
    const { clock, random, ledger } = this.#components
    const { signal } = this.#stopping
    while (!signal.aborted) {
      const startedAt = clock.monotonic()
      const passMs = this.#init.periodMs * (PASS_SHARE_MIN + (1 - PASS_SHARE_MIN) * random.next())
      this.#places.clear()
      const whole = await this.#pass(this.#trust.onProbation ? 0 : passMs, startedAt).catch(error => { this.#failed(error); return false })
      if (signal.aborted) return
      if (whole) {
        this.#lastCompletedAt = clock.now()
        this.#save(() => { ledger.setState(COMPLETED, clock.now()) })
        this.#passed()
      }
      const againMs = this.#trust.onProbation ? Math.min(passMs, PROBATION_AGAIN_MS) : passMs
      await this.#until(Math.max(startedAt + againMs, clock.monotonic() + PAUSE_MS))
    }
  }

  /** What was not looked at for longest comes first, spread evenly over `passMs`. Says whether all of it could be looked at. */
  async #pass (passMs: number, startedAt: number): Promise<boolean> {
    const { clock, ledger } = this.#components
    const files = this.#inOrder()
    this.#bytesDone = 0
    this.#bytesTotal = files.reduce((sum, file) => sum + file.presentBytes, 0)
    const msPerByte = Math.max(passMs / Math.max(1, this.#bytesTotal), 1_000 / BYTES_PER_SECOND_MAX)
    let whole = true
    for (const file of files) {
      for (const { first, count, bytes } of stepsOf(file)) {
        // Before each step, not after it: a node that just started has better things to do.
        await this.#until(startedAt + (this.#bytesDone + bytes) * msPerByte)
        await this.#check(file, first, count).catch(error => { whole = false; this.#failed(error) })
        this.#bytesDone += bytes
      }
      ledger.setScrubbed(file.key, clock.now())
    }
    return whole
  }

  /** Timers end at 24 days, and a period may be longer. */
  async #until (dueAt: number): Promise<void> {
    const { clock } = this.#components
    for (let leftMs = dueAt - clock.monotonic(); leftMs > 0; leftMs = dueAt - clock.monotonic()) await sleep(clock, Math.min(leftMs, SLEEP_MS_MAX), this.#stopping.signal)
  }

  #passed (): void {
    if (!this.#trust.passed(this.#places.count)) return
    this.#unsaved = true
    this.#saveSuspect()
    this.#components.logger.info({}, 'all that is held was re-hashed and nothing is bad: the volume is trusted again')
  }

  #judge (): void {
    if (!this.#trust.found(this.#places.count, this.#components.clock.now())) return
    this.#unsaved = true
    this.#components.logger.error({ places: this.#places.count }, 'several blocks went bad in one scrub: the volume is suspect, and is drained')
    this.#saveSuspect()
  }

  #saveSuspect (): void {
    if (this.#unsaved) this.#save(() => { this.#components.ledger.setState(SUSPECT, this.#trust.suspectSince ?? 0); this.#unsaved = false })
  }

  /** A volume that goes bad may not take a write either: what is known holds for this life, and is saved when that works again. */
  #save (work: () => void): void {
    try {
      work()
    } catch (error) {
      this.#components.logger.warn({ error: asError(error).message }, 'what the scrub found could not be saved')
    }
  }

  #inOrder (): StoredFile[] {
    const { store, ledger } = this.#components
    const at = ledger.scrubbed()
    const files = new Map(store.models().flatMap(model => model.files).map(file => [file.key, file]))
    for (const key of at.keys()) if (!files.has(key)) ledger.setScrubbed(key, undefined)
    return [...files.values()].sort((a, b) => (at.get(a.key) ?? 0) - (at.get(b.key) ?? 0))
  }

  async #check (file: StoredFile, first: number, count: number): Promise<void> {
    const { store, logger } = this.#components
    const { signal } = this.#stopping
    const work = this.#turn.then(async () => {
      if (signal.aborted) return
      this.#saveSuspect()
      const { inPlace } = file
      const size = await sizeOnDisk(file)
      const { bad, unchecked } = await store.verifyRange(file, first, count, { signal })
      // A file in place is the user's, to change as he likes.
      if (bad.length > 0 && !inPlace) {
        this.#places.add(file, bad, size)
        this.#judge()
      }
      this.#bad += bad.length
      if (bad.length > 0) logger.warn({ file: file.key, blocks: bad.length }, 'the scrub found bad blocks; they are withdrawn')
      // Nothing is known of these: no rot, and no pass that looked at everything.
      if (unchecked !== undefined) throw new DiskError(`${unchecked.blocks} blocks of ${file.path ?? file.key} could not be checked: ${unchecked.reason}`)
    })
    this.#turn = work.catch(() => undefined) // told to whoever asked for it
    await work
  }

  #failed (error: unknown): void {
    const failed = asError(error)
    // A model that went meanwhile needs no scrub.
    if (this.#stopping.signal.aborted || failed.name === 'ModelNotFoundError') return
    this.#components.logger.warn({ error: failed.message }, 'a part could not be scrubbed')
  }
}

/** Runs of blocks of about STEP_BYTES in which something is recorded. `bytes`: of what is recorded. */
function * stepsOf ({ index, present }: StoredFile, from = 0, blocks = index.sizes.length): Generator<{ first: number, count: number, bytes: number }> {
  let first = from
  let bytes = 0
  for (let block = from; block < from + blocks; block++) {
    if (present.has(block)) bytes += index.sizes[block] ?? 0
    if (bytes < STEP_BYTES && block < from + blocks - 1) continue
    if (bytes > 0) yield { first, count: block - first + 1, bytes }
    first = block + 1
    bytes = 0
  }
}
