import type { KnownModel } from './known-model.ts'
import type { Origin } from './origin.ts'
import type { ArrivedFile, Caller, OriginModel } from './types.ts'

/** One revision as one caller sees it. */
export class Found implements OriginModel {
  readonly #origin: Origin
  readonly #known: KnownModel
  readonly #revision: string
  readonly #caller: Caller

  constructor (origin: Origin, known: KnownModel, revision: string, caller: Caller) {
    this.#origin = origin
    this.#known = known
    this.#revision = revision
    this.#caller = caller
  }

  get repo (): string { return this.#known.repo }
  get commit (): string { return this.#known.commit }
  get restricted (): boolean { return this.#known.model.restricted }
  get files (): OriginModel['files'] { return this.#known.model.files }
  get foreign (): OriginModel['foreign'] { return this.#known.model.foreign }
  get cid (): string | undefined { return this.#known.cid }

  isVerified (cid: string, path: string): boolean { return this.#known.isVerified(cid, path) }
  async find (signal: AbortSignal): Promise<string> { return await this.#origin.cidOf(this.#known, this.#revision, this.#caller, signal) }
  async verify (path: string, signal: AbortSignal): Promise<void> { await this.#origin.comparisons.verify(this.#known, this.#revision, path, signal) }
  async arrival (path: string, signal: AbortSignal): Promise<ArrivedFile> { return await this.#origin.comparisons.arrival(this.#known, this.#revision, path, signal) }
  async peek (path: string, offset: number, options: { length: number, signal: AbortSignal }): Promise<Uint8Array | undefined> { return await this.#origin.peek(this.#known, path, offset, options) }
  pass (path: string, range: { offset: number, length: number }, signal: AbortSignal): AsyncIterable<Uint8Array> { return this.#origin.pass(this.#known, path, range, this.#caller, signal) }
  lose (cid: string): void { this.#origin.lose(this.#known, cid) }
}
