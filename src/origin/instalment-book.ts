/**
 * Which models in this store are instalments: some files each of a model that is on its way from the upstream, so that nobody has to wait
 * for all of it. They are nobody's: not listed, not kept, and removed when the model is there. Noted beside what else is here of the
 * fetch, so that a node that was killed knows them again:
 *
 *     origin/KEY/instalments.json
 */
import { mkdir, readFile, readdir, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { NodeStoppedError, ORIGIN_INSTALMENTS_MAX, asError, ifThere, isRecord, sleep, throwIfAborted, writeDurably, type Clock, type Logger } from '../base/index.ts'
import { parseModelCid } from '../model/index.ts'

export interface InstalmentBookInit {
  clock: Clock
  logger: Logger
  /** Where fetches keep what they have, by key. */
  directory: string
  /** Removes one from the store, unless it is somebody's by now. False: somebody reads it. */
  discard: (cid: string) => Promise<boolean>
}

/** own: published here, every file was compared with its hash; others: loaded from a peer that fetches, in whole or in part. */
interface Notes { own: string[], others: string[] }

/** Others may be loading one, and find the whole model in this time. */
export const LINGER_MS = 30_000
/** Clients that were cut off come back in seconds, a node that was restarted in minutes: whoever goes on with it has by then. */
export const LEFTOVER_IDLE_MS = 3_600_000
/** Nobody asked for room: a week is long enough to mend a link, or to renew a token. */
export const LEFTOVER_KEPT_MS = 7 * 86_400_000
const FILE = 'instalments.json'
const VERSION = 1

export class InstalmentBook {
  readonly #init: InstalmentBookInit
  readonly #byKey = new Map<string, Notes>()
  readonly #retiring = new Map<string, AbortController>()
  readonly #running = new Set<Promise<void>>()
  readonly #stopping = new AbortController()
  #writing: Promise<void> = Promise.resolve()

  constructor (init: InstalmentBookInit) { this.#init = init }

  /** What earlier lives of this node have noted. */
  async load (): Promise<void> {
    const { directory } = this.#init
    for (const key of await ifThere(readdir(directory)) ?? []) {
      const notes = await this.#read(join(directory, key, FILE))
      if (notes === undefined) continue
      this.#byKey.set(key, notes)
      await this.abandon(key)
    }
  }

  async stop (): Promise<void> {
    this.#stopping.abort(new NodeStoppedError('the node is stopping'))
    await Promise.all(this.#running)
    await this.#writing
  }

  has (cid: string): boolean {
    for (const { own, others } of this.#byKey.values()) if (own.includes(cid) || others.includes(cid)) return true
    return false
  }

  own (key: string): readonly string[] { return this.#byKey.get(key)?.own ?? [] }
  isEmpty (key: string): boolean { return !this.#byKey.has(key) }

  /** Before it is looked at: nothing of it is removed from now on. */
  begin (key: string): void {
    this.#retiring.get(key)?.abort(new Error('it is on its way again'))
    this.#retiring.delete(key)
  }

  /** It is in the store, or will be. A disk that cannot note it is no error: it looks like a cached model then, and goes like one. */
  async add (key: string, cid: string, by: keyof Notes): Promise<void> {
    const notes = this.#byKey.get(key) ?? { own: [], others: [] }
    this.#byKey.set(key, notes)
    if (notes[by].includes(cid)) return
    notes[by].push(cid)
    await this.#write(key)
  }

  /** A user wants it for itself: it is one of the models from now on. */
  async isModel (cid: string): Promise<void> {
    if (!this.has(cid)) return
    for (const key of this.#byKey.keys()) await this.drop(key, cid)
  }

  holds (key: string, cid: string): boolean {
    const notes = this.#byKey.get(key)
    return notes !== undefined && (notes.own.includes(cid) || notes.others.includes(cid))
  }

  /** It turned out to be the whole model, or to be none. */
  async drop (key: string, cid: string): Promise<void> {
    const notes = this.#byKey.get(key)
    if (notes === undefined || !this.holds(key, cid)) return
    const own = notes.own.filter(other => other !== cid)
    const others = notes.others.filter(other => other !== cid)
    if (own.length + others.length === 0) this.#byKey.delete(key)
    else this.#byKey.set(key, { own, others })
    await this.#write(key)
  }

  /** Nobody waits for it just now: what was fetched is gone on with within a week, what others gave within an hour. */
  async abandon (key: string): Promise<void> {
    if (this.#retiring.has(key)) return // sooner
    await this.retire(key, this.own(key).length > 0 ? LEFTOVER_KEPT_MS : LEFTOVER_IDLE_MS)
  }

  /** Removes all of this model, after a while when others may be loading them; those that somebody reads, later. Resolves after the first try. */
  async retire (key: string, lingerMs: number): Promise<void> {
    this.begin(key)
    if (this.isEmpty(key)) return
    const over = new AbortController()
    this.#retiring.set(key, over)
    const signal = AbortSignal.any([over.signal, this.#stopping.signal])
    const later = async (ms: number): Promise<void> => {
      await sleep(this.#init.clock, ms, signal)
      if (!await this.#discardAll(key, signal)) await later(LINGER_MS)
    }
    if (lingerMs === 0) {
      try {
        if (await this.#discardAll(key, signal)) {
          this.#retiring.delete(key)
          return
        }
      } catch (error) {
        if (over.signal.aborted) return // somebody else sees to it, or it is on its way again
        throw error
      }
    }
    // The node stops, or it is on its way again: those that are left are noted.
    const running = later(Math.max(lingerMs, LINGER_MS)).catch(error => { if (!signal.aborted) this.#init.logger.warn({ error: asError(error).message }, 'parts of a model that is here as a whole could not be removed') })
    this.#running.add(running)
    void running.then(() => {
      this.#running.delete(running)
      if (this.#retiring.get(key) === over) this.#retiring.delete(key)
    })
  }

  /** Says whether all are gone. */
  async #discardAll (key: string, signal: AbortSignal): Promise<boolean> {
    const { own = [], others = [] } = this.#byKey.get(key) ?? {}
    for (const cid of [...own, ...others]) {
      throwIfAborted(signal)
      if (await this.#init.discard(cid)) await this.drop(key, cid)
    }
    return this.isEmpty(key)
  }

  async #read (path: string): Promise<Notes | undefined> {
    try {
      const text = await ifThere(readFile(path, 'utf8'))
      if (text === undefined) return undefined
      const value: unknown = JSON.parse(text)
      if (!isRecord(value) || value.version !== VERSION) throw new Error('it is of another version')
      return { own: readCids(value.own), others: readCids(value.others) }
    } catch (error) {
      this.#init.logger.warn({ path, error: asError(error).message }, 'what was noted of a fetch from the upstream cannot be read; its parts stay until room is needed')
      return undefined
    }
  }

  /** One after the other, each what is so by then. */
  async #write (key: string): Promise<void> {
    await (this.#writing = this.#writing.then(async () => {
      const directory = join(this.#init.directory, key)
      const notes = this.#byKey.get(key)
      try {
        if (notes === undefined) {
          await rm(join(directory, FILE), { force: true })
          await rmdir(directory).catch(() => undefined) // there is more, or nothing
          return
        }
        await mkdir(directory, { recursive: true, mode: 0o700 })
        await writeDurably(join(directory, FILE), Buffer.from(JSON.stringify({ version: VERSION, ...notes })), { mode: 0o600 })
      } catch (error) {
        this.#init.logger.warn({ path: directory, error: asError(error).message }, 'what is here of a fetch from the upstream could not be noted')
      }
    }))
  }
}

/** Throws InvalidCidError. */
function readCids (value: unknown): string[] {
  if (!Array.isArray(value)) throw new Error('it has no list of models')
  return value.slice(0, 4 * ORIGIN_INSTALMENTS_MAX).map(cid => parseModelCid(String(cid)).toString())
}
