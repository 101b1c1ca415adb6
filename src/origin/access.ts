import { UpstreamBusyError, UpstreamError, UpstreamRefusedError, UpstreamTimeoutError, type Clock, type Logger, type Random } from '../base/index.ts'
import { Answers } from './answers.ts'
import type { KnownModel, KnownModels } from './known-model.ts'
import { COMMIT, type Caller } from './types.ts'
import type { Upstream } from './upstream.ts'

/** A name that was fetched before, and what it stood for. */
export interface KnownName { repo: string, revision: string, commit: string, restricted: boolean, cid: string }

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

/**
 * What a name stands for at the upstream, for a caller who may see it. The upstream is asked with the caller's own token: what it
 * refuses to one is refused to that one, whoever else has it here. While it cannot be asked, what is here is served to whom it
 * was open before.
 */
export class Access {
  readonly #components: AccessComponents
  /** Commits by name. */
  readonly #names: Answers<string>
  readonly #letIn: Answers<true>

  constructor (components: AccessComponents) {
    this.#components = components
    this.#names = new Answers(components)
    this.#letIn = new Answers(components)
  }

  /** For heads, listings and files alike. Throws UpstreamRefusedError, UpstreamBusyError, UpstreamError, UpstreamTimeoutError. */
  async find (repo: string, revision: string, caller: Caller): Promise<KnownModel> {
    const { upstream, signal } = this.#components
    try {
      const found = await this.#ask(repo, revision, caller)
      if (!found.model.restricted) return found
      await this.#letIn.get(caller, repo, LET_IN_MS, async () => {
        await upstream.letIn(found.model, caller, signal)
        return true
      })
      return found
    } catch (error) {
      if (error instanceof UpstreamRefusedError) this.forget(repo, revision, caller)
      if (!isSilence(error)) throw error
      return await this.#meanwhile(repo, revision, caller, error)
    }
  }

  /** The upstream refused something to this caller: what it let in before counts no more. */
  forget (repo: string, revision: string, caller: Caller): void {
    this.#letIn.forget(caller, repo)
    this.#names.forget(caller, `${repo}@${revision}`)
  }

  async #ask (repo: string, revision: string, caller: Caller): Promise<KnownModel> {
    const { upstream, known, learned, signal } = this.#components
    const learn = async (what: string): Promise<KnownModel> => {
      const model = await upstream.model(repo, what, caller, signal)
      const found = known.keep(model)
      found.learn(model)
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

  /** Throws `error` when nothing may be served without the upstream. */
  async #meanwhile (repo: string, revision: string, caller: Caller, error: Error): Promise<KnownModel> {
    const { known, linked, describe, logger } = this.#components
    const before = known.get(repo, COMMIT.test(revision) ? revision : await this.#names.last(caller, `${repo}@${revision}`) ?? '')
    const name = linked(repo, revision)
    const restricted = before?.model.restricted ?? name?.restricted ?? true
    if (restricted && await this.#letIn.last(caller, repo) === undefined) throw error
    const found = before ?? (name === undefined ? undefined : known.get(repo, name.commit) ?? await describe(name))
    if (found === undefined) throw error
    logger.info({ repo, error: error.message }, 'the upstream is silent; what is known here is served')
    return found
  }
}

function isSilence (error: unknown): error is Error {
  return error instanceof UpstreamError || error instanceof UpstreamTimeoutError || error instanceof UpstreamBusyError
}
