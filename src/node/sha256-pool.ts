import { Worker } from 'node:worker_threads'
import { asError } from '../base/index.ts'
import type { HashAnswer, HashRequest } from './sha256-worker.ts'

/**
 * SHA-256 of files on other threads: at 1.7 GiB/s a core it is the slowest step of publishing, and unlike the blocks'
 * BLAKE3 it cannot be split. Bytes travel by reference, so they must lie in shared memory and stay as they are until
 * `add` resolves.
 */
export class Sha256Thread {
  readonly #worker: Worker
  readonly #waiting: Array<{ resolve: (answer: HashAnswer) => void, reject: (error: Error) => void }> = []
  #failed: Error | undefined

  constructor () {
    // URLs are not rewritten by the compiler as import specifiers are.
    const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js'
    this.#worker = new Worker(new URL(`./sha256-worker${extension}`, import.meta.url))
    this.#worker.on('message', (answer: HashAnswer) => { this.#waiting.shift()?.resolve(answer) })
    this.#worker.on('error', error => { this.#fail(asError(error)) })
    this.#worker.on('exit', () => { this.#fail(new Error('the hash thread ended')) })
  }

  async add (bytes: Uint8Array): Promise<void> {
    await this.#ask({ type: 'add', bytes })
  }

  /** The digest of all bytes added since the last one. */
  async finish (): Promise<Uint8Array> {
    const answer = await this.#ask({ type: 'finish' })
    if (answer.type !== 'digest') throw new Error('the hash thread answered out of turn')
    return answer.digest
  }

  async stop (): Promise<void> {
    await this.#worker.terminate()
  }

  #ask (request: HashRequest): Promise<HashAnswer> {
    if (this.#failed !== undefined) return Promise.reject(this.#failed)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#worker.postMessage(request)
    })
  }

  #fail (error: Error): void {
    this.#failed ??= error
    for (const { reject } of this.#waiting.splice(0)) reject(error)
  }
}
