import { UpstreamBusyError, UpstreamError, UpstreamRefusedError, UpstreamTimeoutError, withSignal, type Clock, type Logger, type Random } from '../base/index.ts'
import { COMMIT } from '../model/index.ts'
import { Answers } from './answers.ts'
import type { KnownModel, KnownModels } from './known-model.ts'
import type { Caller, UpstreamModel } from './types.ts'
import { METADATA_MS, type AskOptions, type Upstream } from './upstream.ts'

/** A name that was fetched before, and what it stood for. */
export interface KnownName extends Pick<UpstreamModel, 'repo' | 'id' | 'commit' | 'restricted'> { revision: string, cid: string }

export interface AccessComponents {
  upstream: Upstream
  known: KnownModels
  clock: Clock
  random: Random
  logger: Logger
  /** What is linked here of that name, and was fetched. */
  linked: (repo: string, revision: string) => KnownName | undefined
  /** The same as a model whose files are named by its manifest: while the upstream says nothing. */
  describe: (name: KnownName) => Promise<KnownModel>
  /** Whether it is restricted was said just now. */
  learned: (known: KnownModel) => Promise<void>
  /** Ends when the node does: what many wait for is nobody's own. */
  signal: AbortSignal
}

/** A branch may move on; clients of the Hub see that at once, those of this node a minute later. */
const NAME_MS = 60_000
/** Who was let in to a gated model stays so long. */
const LET_IN_MS = 600_000
/** Clients give up after 10 s: when the upstream has had its time, the rest is for what is known here. */
const FIND_MS = 9_500
/** A silence that a client had to wait so long for is remembered; one that is told at once costs nobody anything. */
const SLOW_MS = 1_000
/** So long nobody waits for an upstream that was silent, where what is known here will do. */
const SILENCE_MS = 30_000

/**
 * What a name stands for at the upstream, for a caller who may see it. The upstream is asked with the caller's own token: what it
 * refuses to one is refused to that one, whoever else has it here. While it cannot be asked, what is here is served to whom it
 * was open before; at once, when it has kept somebody waiting, and then one request at a time looks whether it is back.
 */
export class Access {
  readonly #components: AccessComponents
  /** Commits by name. */
  readonly #names: Answers<string>
  readonly #letIn: Answers<true>
  #silence: { error: Error, until: number } | undefined
  #looking: Promise<void> | undefined

  constructor (components: AccessComponents) {
    this.#components = components
    this.#names = new Answers(components)
    this.#letIn = new Answers(components)
  }

  /** For heads, listings and files alike, in FIND_MS. Throws UpstreamRefusedError, UpstreamBusyError, UpstreamError, UpstreamTimeoutError. */
  async find (repo: string, revision: string, caller: Caller): Promise<KnownModel> {
    return await this.#within(FIND_MS, repo, this.#find(repo, revision, caller))
  }

  /** The signal has been aborted: resolves when nobody looks any more. */
  async stop (): Promise<void> { await this.#looking }

  async #find (repo: string, revision: string, caller: Caller): Promise<KnownModel> {
    const silence = this.#silence
    if (silence !== undefined && this.#components.clock.monotonic() < silence.until) {
      this.#look(repo, revision, caller)
      const found = await this.#meanwhile(repo, revision, caller, silence.error)
      if (found !== undefined) return found
    }
    try {
      // It may join a request of somebody who came later.
      return await this.#within(METADATA_MS, repo, this.#askAll(repo, revision, caller))
    } catch (error) {
      const found = isSilence(error) ? await this.#meanwhile(repo, revision, caller, error) : undefined
      if (found === undefined) throw error
      return found
    }
  }

  /** Whether the upstream is back. Of one request at a time: they may be many, and it busy. */
  #look (repo: string, revision: string, caller: Caller): void {
    this.#looking ??= this.#askAll(repo, revision, caller).then(() => undefined, () => undefined) // it has noted what it found
      .finally(() => { this.#looking = undefined })
  }

  async #within<T> (timeoutMs: number, repo: string, work: Promise<T>): Promise<T> {
    const late = new AbortController()
    const cancel = this.#components.clock.setTimeout(() => { late.abort(new UpstreamTimeoutError(`the upstream did not tell about ${repo} in ${timeoutMs / 1_000} s`)) }, timeoutMs)
    try {
      return await withSignal(work, late.signal)
    } finally {
      cancel()
    }
  }

  /** The upstream refused something to this caller: what it let in before counts no more. */
  forget (repo: string, revision: string, caller: Caller): void {
    this.#letIn.forget(caller, repo)
    this.#names.forget(caller, `${repo}@${revision}`)
  }

  /** Throws what the upstream says, and notes that it is silent, or is not any more. */
  async #askAll (repo: string, revision: string, caller: Caller): Promise<KnownModel> {
    const { upstream, clock, signal } = this.#components
    const startedAt = clock.monotonic()
    const options = (): AskOptions => ({ signal, timeoutMs: Math.max(0, startedAt + METADATA_MS - clock.monotonic()) })
    try {
      const found = await this.#ask(repo, revision, caller, options)
      if (!found.model.restricted) return found
      await this.#letIn.get(caller, repo, LET_IN_MS, async () => {
        await upstream.letIn(found.model, caller, options())
        this.#silence = undefined
        return true
      })
      return found
    } catch (error) {
      if (error instanceof UpstreamRefusedError) this.forget(repo, revision, caller)
      const now = clock.monotonic()
      if (!isSilence(error)) this.#silence = undefined
      else if (now - startedAt >= SLOW_MS) this.#silence = { error, until: now + SILENCE_MS }
      throw error
    }
  }

  /** `options` are those of the moment. What is known already is no word of the upstream's. */
  async #ask (repo: string, revision: string, caller: Caller, options: () => AskOptions): Promise<KnownModel> {
    const { upstream, known, learned } = this.#components
    const learn = async (what: string): Promise<KnownModel> => {
      const model = await upstream.model(repo, what, caller, options())
      this.#silence = undefined
      const found = known.learn(model)
      await learned(found)
      return found
    }
    const commit = await this.#names.get(caller, `${repo}@${revision}`, NAME_MS, async () => {
      const { commit } = await learn(revision)
      // Clients go on with the commit: this caller was told about it just now. Whoever asks for that is answered by itself.
      if (commit !== revision) await this.#names.get(caller, `${repo}@${commit}`, NAME_MS, async () => commit).catch(() => undefined)
      return commit
    })
    return known.get(repo, commit) ?? await learn(commit)
  }

  /** What may be served without the upstream, which `error` says to be silent. */
  async #meanwhile (repo: string, revision: string, caller: Caller, error: Error): Promise<KnownModel | undefined> {
    const { known, linked, describe, logger } = this.#components
    const before = known.get(repo, COMMIT.test(revision) ? revision : await this.#names.last(caller, `${repo}@${revision}`) ?? '')
    const name = linked(repo, revision)
    const restricted = before?.model.restricted ?? name?.restricted ?? true
    if (restricted && await this.#letIn.last(caller, repo) === undefined) return undefined
    const found = before ?? (name === undefined ? undefined : known.get(repo, name.commit) ?? await describe(name))
    if (found === undefined) return undefined
    logger.info({ repo, error: error.message }, 'the upstream is silent; what is known here is served')
    return found
  }
}

function isSilence (error: unknown): error is Error {
  return error instanceof UpstreamError || error instanceof UpstreamTimeoutError || error instanceof UpstreamBusyError
}
