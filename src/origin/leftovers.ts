/** What fetches that broke off have left on this disk: kept for whoever goes on with it, but not for ever, and not when room is wanted. */
import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { DiskError, asError, ifThere, type Clock, type Logger } from '../base/index.ts'
import { InstalmentBook, LEFTOVER_IDLE_MS, LEFTOVER_KEPT_MS, type InstalmentBookInit } from './instalment-book.ts'


export interface Leftover { key: string, path: string, bytes: number }

/** Each is a model that came in part, by its key, to which nothing was written for `idleMs`. `isUsed` are those of running fetches. */
export async function leftoversIn (directory: string, { now, idleMs, isUsed }: { now: number, idleMs: number, isUsed: (key: string) => boolean }): Promise<Leftover[]> {
  const found: Leftover[] = []
  for (const key of await namesIn(directory)) {
    const path = join(directory, key)
    const { bytes, newestMs } = await measure(path)
    if (!isUsed(key) && now - newestMs >= idleMs) found.push({ key, path, bytes })
  }
  return found
}

export interface LeftoversInit extends Pick<InstalmentBookInit, 'clock' | 'logger' | 'discard'> {}

export class Leftovers {
  readonly directory: string
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #inUse = new Map<string, number>()
  readonly #removing = new Map<string, Promise<void>>()
  /** What of them is in the store. */
  readonly instalments: InstalmentBook

  constructor ({ clock, logger, discard }: LeftoversInit, directory: string) {
    this.directory = directory
    this.#clock = clock
    this.#logger = logger
    this.instalments = new InstalmentBook({ clock, logger, directory, discard })
  }

  /** While `work` runs, what is there of this model stays. */
  async using<T> (key: string, work: () => Promise<T>): Promise<T> {
    this.#inUse.set(key, (this.#inUse.get(key) ?? 0) + 1)
    try {
      await this.#removing.get(key)
      return await work()
    } finally {
      const others = (this.#inUse.get(key) ?? 1) - 1
      if (others === 0) this.#inUse.delete(key)
      else this.#inUse.set(key, others)
    }
  }

  /** What was begun long ago and never gone on with. */
  async sweep (): Promise<void> {
    try {
      await this.#collect(LEFTOVER_KEPT_MS, false)
    } catch (error) {
      this.#logger.warn({ path: this.directory, error: asError(error).message }, 'what earlier fetches from the upstream left cannot be looked at')
    }
  }

  /** Says how many bytes are freed, or would be. Throws DiskError. */
  async gc (dryRun: boolean): Promise<number> {
    try {
      return await this.#collect(LEFTOVER_IDLE_MS, dryRun)
    } catch (error) {
      throw new DiskError(`cannot look at what fetches from the upstream left in ${this.directory}: ${asError(error).message}`, { cause: error })
    }
  }

  async #collect (idleMs: number, dryRun: boolean): Promise<number> {
    let freed = 0
    for (const { key, path, bytes } of await leftoversIn(this.directory, { now: this.#clock.now(), idleMs, isUsed: key => this.#inUse.has(key) })) {
      if (!dryRun && !await this.#remove(key, path)) continue
      freed += bytes
    }
    return freed
  }

  async #remove (key: string, path: string): Promise<boolean> {
    if (this.#inUse.has(key)) return false // since it was looked at
    const other = this.#removing.get(key)
    if (other !== undefined) {
      await other
      return false
    }
    const removing = this.instalments.retire(key, 0).then(async () => { await rm(path, { recursive: true, force: true }) })
    this.#removing.set(key, removing.catch(() => undefined))
    try {
      await removing
      return true
    } catch (error) {
      this.#logger.warn({ path, error: asError(error).message }, 'what an earlier fetch from the upstream left cannot be removed')
      return false
    } finally {
      this.#removing.delete(key)
    }
  }
}

/** On disk, a file with several names once; and when something was last written there. */
async function measure (path: string): Promise<{ bytes: number, newestMs: number }> {
  let bytes = 0
  let newestMs = -Infinity
  const counted = new Set<number>()
  const look = async (place: string): Promise<void> => {
    const there = await ifThere(lstat(place))
    if (there === undefined) return // gone since: somebody is at work
    newestMs = Math.max(newestMs, there.mtimeMs)
    if (!there.isDirectory() && !counted.has(there.ino)) {
      counted.add(there.ino)
      bytes += there.blocks * 512
    }
    if (there.isDirectory()) for (const name of await namesIn(place)) await look(join(place, name))
  }
  await look(path)
  return { bytes, newestMs }
}

async function namesIn (directory: string): Promise<string[]> {
  return await ifThere(readdir(directory)) ?? []
}
