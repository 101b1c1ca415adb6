import { Worker } from 'node:worker_threads'
import type { CID } from 'multiformats/cid'
import { asError, type Logger } from '../base/index.ts'
import { BLAKE3_256, digestMatches, verifyBytes } from '../model/index.ts'
import type { HashAnswer, HashRequest } from './hash-worker.ts'

/** More do not help: eight threads hash 40 GiB/s, and one thread of JavaScript takes in 2 of them at most. */
const THREADS_MAX = 8
/** Who hashes one GiB in 0.18 s keeps up with several that receive one in 0.9 s. */
const CORES_PER_THREAD = 4

/**
 * Threads that help a node with so many cores. One does on two already, with the seeder on them too: 0.97 instead of 0.93 GiB/s, at no
 * more CPU (docs/decisions/0007-lanes.md).
 */
export function hashThreadsFor (cores: number): number {
  return cores < 2 ? 0 : Math.min(THREADS_MAX, Math.max(1, Math.floor(cores / CORES_PER_THREAD)))
}

/**
 * Compares whole blocks with their CIDs on other threads, so that the thread which receives them does not wait for a fifth of
 * its time. Threads start with the first block and until they are up, or when they fail, blocks are hashed here.
 */
export class BlockChecks {
  readonly #logger: Logger
  readonly #size: number
  readonly #threads: HashThread[] = []
  #started = false
  #stopped = false

  constructor (size: number, logger: Logger) {
    this.#size = Math.min(size, THREADS_MAX)
    this.#logger = logger
  }

  /** Threads that are at work. */
  get threads (): number { return this.#threads.filter(({ up }) => up).length }

  /**
   * Whether these are the bytes that the CID names; undefined when that was not found out because the node stops. The bytes lie
   * in shared memory and stay as they are until then. Never rejects.
   */
  async check (cid: CID, bytes: Uint8Array): Promise<boolean | undefined> {
    if (this.#stopped) return undefined
    if (!this.#started) this.#start()
    let thread: HashThread | undefined
    for (const other of this.#threads) if (other.up && (thread === undefined || other.waiting < thread.waiting)) thread = other
    if (thread === undefined || cid.multihash.code !== BLAKE3_256 || !(bytes.buffer instanceof SharedArrayBuffer)) return verifyBytes(cid, bytes)
    const digest = await thread.hash(bytes)
    if (digest !== undefined) return digestMatches(cid, digest)
    return this.#stopped ? undefined : verifyBytes(cid, bytes)
  }

  async stop (): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#threads.map(async thread => { await thread.stop() }))
  }

  #start (): void {
    this.#started = true
    for (let i = 0; i < this.#size; i++) {
      this.#threads.push(new HashThread(error => { if (!this.#stopped) this.#logger.error({ error: error.message }, 'a hash thread failed; blocks are hashed without it') }))
    }
  }
}

class HashThread {
  readonly #worker: Worker
  readonly #failed: (error: Error) => void
  readonly #waiting: Array<(digest: Uint8Array | undefined) => void> = []
  /** It can be given work. */
  up = false

  constructor (failed: (error: Error) => void) {
    this.#failed = failed
    // URLs are not rewritten by the compiler as import specifiers are.
    const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js'
    this.#worker = new Worker(new URL(`./hash-worker${extension}`, import.meta.url))
    this.#worker.unref() // it keeps no process alive that has nothing else to do
    this.#worker.on('online', () => { this.up = true })
    this.#worker.on('message', ({ digest }: HashAnswer) => { this.#waiting.shift()?.(digest) })
    this.#worker.on('error', error => { this.#end(asError(error)) })
    this.#worker.on('exit', () => { this.#end(new Error('the hash thread ended')) })
  }

  get waiting (): number { return this.#waiting.length }

  /** Undefined when the thread has failed. */
  async hash (bytes: Uint8Array): Promise<Uint8Array | undefined> {
    return await new Promise(resolve => {
      this.#waiting.push(resolve)
      this.#worker.postMessage({ bytes } satisfies HashRequest)
    })
  }

  async stop (): Promise<void> {
    await this.#worker.terminate()
  }

  #end (error: Error): void {
    const wasUp = this.up
    this.up = false
    for (const resolve of this.#waiting.splice(0)) resolve(undefined)
    if (wasUp) this.#failed(error)
  }
}
