import { join } from 'node:path'
import { mkdir, rm } from 'node:fs/promises'
import {
  NoProviderError, NodeStoppedError, ORIGIN_PEEK_BYTES_MAX, Semaphore, UPSTREAM_FETCHES_MAX, UpstreamMismatchError, UpstreamRefusedError, asError, throwIfAborted
} from '../base/index.ts'
import { Access, type KnownName } from './access.ts'
import type { Claim } from './claims.ts'
import type { OriginComponents } from './components.ts'
import type { Download } from './download.ts'
import { fetchModel } from './fetch.ts'
import { findModel } from './find.ts'
import { Found } from './found.ts'
import { KnownModel, KnownModels, keyOf } from './known-model.ts'
import type { Leftovers } from './leftovers.ts'
import { SharedWork } from './shared-work.ts'
import { OriginSwarm } from './swarm.ts'
import type { Caller, ModelOrigin, OriginCounters, OriginFetch, OriginModel, OriginStatus } from './types.ts'
import { bytesOf, checkHash, hashFor } from './upstream-model.ts'
import { Upstream } from './upstream.ts'

export interface OriginInit {
  upstream: string
  userAgent: string
  self: string
  /** Where models come to before they are published, and what of them stays there. */
  leftovers: Leftovers
  /** It goes with this node. */
  isTemporary: boolean
}

/** Clients wait 10 s for a head. */
const DESCRIBE_MS = 8_000
/** Clients that were cut off come back in seconds. */
const LINGER_MS = 30_000
/** Clients try again at once, and several at a time: they are told the same for so long. */
const FAILED_MS = 2_000
/** What is wrong now will be wrong for a while, and each attempt costs the upstream a whole file. */
const WRONG_MS = 60_000

/**
 * Models that nobody in the swarm has, from an upstream Hub: one node fetches, all get it from each other. docs/decisions/0009-origin.md.
 */
export class Origin implements ModelOrigin {
  readonly #components: OriginComponents
  readonly #init: OriginInit
  readonly #upstream: Upstream
  readonly #swarm: OriginSwarm
  readonly #access: Access
  readonly #known = new KnownModels()
  readonly #claims = new Map<string, Claim>()
  readonly #downloads = new Map<string, Download>()
  readonly #fetches = new Map<KnownModel, OriginFetch>()
  readonly #telling = new Set<Promise<void>>()
  readonly #slots = new Semaphore(UPSTREAM_FETCHES_MAX)
  readonly #stopping = new AbortController()
  readonly #counters: OriginCounters = { requests: { ok: 0, refused: 0, busy: 0, failed: 0 }, bytes: 0, fetched: 0, failed: 0, shared: 0 }

  constructor (components: OriginComponents, init: OriginInit) {
    this.#components = components
    this.#init = init
    const { clock, random, logger } = components
    const { signal } = this.#stopping
    this.#upstream = new Upstream({ url: init.upstream, userAgent: init.userAgent, clock, counters: this.#counters })
    this.#swarm = new OriginSwarm(components, { claimOf: key => this.#claimOf(key), peek: async ({ key, path, offset, length }) => await this.#downloads.get(key)?.peek(path, offset, length) })
    this.#access = new Access({
      upstream: this.#upstream,
      known: this.#known,
      clock,
      random,
      logger,
      linked: (repo, revision) => components.names(repo).find(name => name.revision === revision || name.commit === revision),
      describe: async name => await this.#describe(name),
      learned: async known => { await this.#restrict(known) },
      signal
    })
  }

  async start (): Promise<void> {
    const { leftovers } = this.#init
    await mkdir(leftovers.directory, { recursive: true, mode: 0o700 })
    await leftovers.sweep()
    await this.#swarm.start()
    for (const name of this.#components.names()) this.#have(name)
  }

  async stop (): Promise<void> {
    this.#stopping.abort(new NodeStoppedError('the node is stopping'))
    await this.#swarm.stop()
    await Promise.all(this.#telling)
    await Promise.all([...this.#fetches.keys()].map(async known => { await known.finding?.over() }))
    this.#upstream.stop()
    if (this.#init.isTemporary) await rm(this.#init.leftovers.directory, { recursive: true, force: true })
  }

  status (): OriginStatus {
    for (const [known, fetch] of this.#fetches) {
      const download = this.#downloads.get(known.key)
      if (download !== undefined) fetch.bytesDone = download.bytesDone
    }
    return { upstream: this.#upstream.url, fetches: [...this.#fetches.values()].map(fetch => ({ ...fetch })), counters: structuredClone(this.#counters) }
  }

  async resolve (repo: string, revision: string, caller: Caller): Promise<OriginModel> {
    throwIfAborted(this.#stopping.signal)
    const known = await this.#access.find(repo, revision, caller)
    const names = this.#components.names(repo)
    const linked = names.find(name => name.commit === known.commit)
    // While it is looked for, what is linked is gone.
    if (linked !== undefined && known.looksFor(linked.cid, this.#components.clock.monotonic()) && known.finding?.ended !== false) {
      if (known.cid !== linked.cid) {
        known.trust(linked.cid)
        if (!this.#claims.has(known.key)) this.#have(linked) // it was lost, and may be back
      }
      // The same commit under another name: now that, too.
      if (known.sure && !names.some(name => name.revision === revision && name.commit === known.commit)) await this.#link(known, revision)
    }
    return new Found(this, known, revision, caller)
  }

  async refs (repo: string, caller: Caller): Promise<unknown> {
    return await this.#upstream.refs(repo, caller, this.#stopping.signal)
  }

  /** Of Found. */
  async cidOf (known: KnownModel, revision: string, caller: Caller, signal: AbortSignal): Promise<string> {
    for (;;) {
      if (known.cid !== undefined) return known.cid
      if (known.failed !== undefined && this.#components.clock.monotonic() < known.failed.until) throw known.failed.error
      if (known.finding === undefined || known.finding.ended) known.finding = this.#begin(known, revision, caller)
      const asker = known.findingFor
      try {
        return await known.finding.join(signal)
      } catch (error) {
        // What the upstream refuses to somebody else's token it may give to this one.
        if (!(error instanceof UpstreamRefusedError) || asker === undefined || asker.token === caller.token) throw error
      }
    }
  }

  #begin (known: KnownModel, revision: string, caller: Caller): SharedWork<string> {
    known.findingFor = caller
    const work: SharedWork<string> = new SharedWork({ clock: this.#components.clock, lingerMs: LINGER_MS, signal: this.#stopping.signal }, async signal => {
      await Promise.resolve() // `work` is there
      try {
        return await this.#init.leftovers.using(known.key, async () => await this.#find(known, revision, { caller, signal, keep: keep => { work.keep(keep) } }))
      } finally {
        if (known.findingFor === caller) known.findingFor = undefined
      }
    })
    return work
  }

  /** Of Found: the file is whole here, and its bytes are what the upstream says. */
  async verify (known: KnownModel, revision: string, path: string, signal: AbortSignal): Promise<void> {
    const { cid } = known
    if (cid === undefined) throw new NoProviderError(`${known.repo} has to be found first`)
    if (known.isVerified(cid, path)) return
    const name = `${cid}/${path}`
    let work = known.verifying.get(name)
    if (work === undefined || work.ended) {
      work = new SharedWork({ clock: this.#components.clock, lingerMs: LINGER_MS, signal: this.#stopping.signal }, async signal => { await this.#verify(known, revision, { cid, path, signal }) })
      known.verifying.set(name, work)
      void work.over().then(() => { known.verifying.delete(name) })
    }
    await work.join(signal)
  }

  /** Of Found: some bytes to go on with, compared with nothing yet. */
  async peek (known: KnownModel, path: string, offset: number, given: { length: number, signal: AbortSignal }): Promise<Uint8Array | undefined> {
    const { signal } = given
    const length = Math.min(given.length, ORIGIN_PEEK_BYTES_MAX)
    if (known.cid !== undefined) return await this.#components.readSome(known.cid, path, { offset, length }, { signal, from: known.holders })
    const here = this.#downloads.get(known.key)
    if (here !== undefined) return await here.peek(path, offset, length)
    const peerId = this.#fetches.get(known)?.peerId
    return peerId === undefined ? undefined : await this.#swarm.peek(peerId, { key: known.key, path, offset, length }, signal)
  }

  /** Of Found: nobody has it any more. */
  lose (known: KnownModel, cid: string): void {
    if (known.cid !== cid) return
    known.forget()
    known.miss(cid, this.#components.clock.monotonic())
    this.#claims.delete(known.key)
    this.#components.router.withdraw([known.name])
  }

  /** Of what it has whole, and only while it has: it may have been removed, or given up for room. */
  #claimOf (key: string): Claim | undefined {
    const claim = this.#claims.get(key)
    return claim?.cid !== undefined && this.#components.held(claim.cid) !== 'whole' ? undefined : claim
  }

  async #find (known: KnownModel, revision: string, { caller, signal, keep }: { caller: Caller, signal: AbortSignal, keep: (keep: boolean) => void }): Promise<string> {
    const { clock, logger } = this.#components
    const { self, leftovers: { directory } } = this.#init
    const progress: OriginFetch = { repo: known.repo, commit: known.commit, phase: 'asking', peerId: undefined, startedAt: clock.now(), bytesDone: 0, bytesTotal: bytesOf(known.model) }
    const claim = (claim: Claim | undefined, download?: Download): void => {
      if (claim === undefined) this.#claims.delete(known.key)
      else this.#claims.set(known.key, claim)
      if (download === undefined) this.#downloads.delete(known.key)
      else this.#downloads.set(known.key, download)
    }
    this.#fetches.set(known, progress)
    try {
      const fetch = async (): Promise<string> => await this.#slots.run(async () => {
        // It goes on to its end, whoever leaves: it is fetched for all.
        keep(true)
        progress.peerId = undefined
        try {
          return await fetchModel({ ...this.#components, upstream: this.#upstream, swarm: this.#swarm }, { known, caller, directory, self, progress, claim, signal })
        } finally {
          keep(false)
        }
      }, signal)
      const { cid, fetched, from } = await findModel({ ...this.#components, swarm: this.#swarm, fetch }, { known, self, progress, claim, signal })
      if (fetched) {
        known.fetched(cid)
        this.#counters.fetched++
        await this.#link(known, revision)
        logger.info({ repo: known.repo, commit: known.commit, cid }, 'fetched from the upstream and published')
      } else {
        known.hint(cid, { wasHere: this.#components.held(cid) !== undefined, from })
        this.#counters.shared++
        await rm(join(directory, known.key), { recursive: true, force: true })
      }
      return cid
    } catch (error) {
      if (!signal.aborted) {
        this.#counters.failed++
        // A refusal is for this caller alone.
        if (error instanceof UpstreamRefusedError) this.#access.forget(known.repo, revision, caller)
        else known.failed = { error: asError(error), until: clock.monotonic() + (error instanceof UpstreamMismatchError ? WRONG_MS : FAILED_MS) }
        logger.warn({ repo: known.repo, commit: known.commit, error: asError(error).message }, 'a model could not be fetched from the upstream')
      }
      throw error
    } finally {
      this.#fetches.delete(known)
      this.#tell(known.key)
      if (!this.#claims.has(known.key)) this.#components.router.withdraw([known.name])
    }
  }

  async #verify (known: KnownModel, revision: string, { cid, path, signal }: { cid: string, path: string, signal: AbortSignal }): Promise<void> {
    const file = known.model.files.find(file => file.path === path)
    if (file === undefined) throw new TypeError(`${path} is no file of ${known.repo}`)
    const hash = hashFor(file)
    for await (const bytes of this.#components.read(cid, path, { signal, from: known.holders })) hash.update(bytes)
    try {
      checkHash(known.model, file, hash, cid)
    } catch (error) {
      if (error instanceof UpstreamMismatchError && known.cid === cid) {
        this.#components.logger.warn({ repo: known.repo, cid, error: error.message }, 'a peer took another model for this one')
        known.forget()
        known.refused.add(cid)
        if (!known.wasHere) await this.#components.discard(cid)
      }
      throw error
    }
    if (known.cid !== cid) return
    known.verify(file)
    if (known.sure || !known.isWhole) return
    known.sure = true
    await this.#link(known, revision)
  }

  /** Names it, and tells others: from now on this node has it. */
  async #link (known: KnownModel, revision: string): Promise<void> {
    const { cid, commit, repo, model: { restricted } } = known
    if (cid === undefined) return
    for (const each of new Set([revision, commit])) await this.#name({ repo, revision: each, commit, restricted, cid })
    this.#have({ repo, revision, commit, restricted, cid })
  }

  /** So that it is known after a restart, while the upstream is silent. */
  async #restrict ({ repo, commit, model: { restricted } }: KnownModel): Promise<void> {
    for (const name of this.#components.names(repo)) if (name.commit === commit && name.restricted !== restricted) await this.#name({ ...name, restricted })
  }

  async #name (name: KnownName): Promise<void> {
    try {
      await this.#components.link(name)
    } catch (error) {
      // It is served all the same; a revision that no link can have is asked for by its commit.
      this.#components.logger.warn({ repo: name.repo, revision: name.revision, error: asError(error).message }, 'a model of the upstream could not be linked')
    }
  }

  /** Who waits for this node hears at once that it need not. */
  #tell (key: string): void {
    const telling = this.#swarm.tell(key, this.#stopping.signal).catch(() => undefined) // the node is stopping
    this.#telling.add(telling)
    void telling.then(() => { this.#telling.delete(telling) })
  }

  #have ({ repo, commit, cid }: KnownName): void {
    const known = this.#known.get(repo, commit) ?? new KnownModel({ repo, commit, restricted: true, files: [] })
    const key = keyOf({ repo, commit })
    this.#claims.set(key, { peerId: this.#init.self, state: 'have', cid, bytesDone: 0, bytesTotal: 0 })
    this.#tell(key)
    // In its turn: who fetched it has told at once, and one that is found is enough.
    if (this.#components.held(cid) === 'whole') this.#components.router.announce([known.name])
  }

  async #describe ({ repo, commit, restricted, cid }: KnownName): Promise<KnownModel> {
    const { files } = await this.#components.describe(cid, { signal: this.#stopping.signal, providerTimeoutMs: DESCRIBE_MS })
    return this.#known.keep({
      repo,
      commit,
      restricted,
      files: files.map(({ path, size, sha256, gitSha1 }) => gitSha1 === undefined ? { path, size, oid: sha256.slice(0, 40), sha256 } : { path, size, oid: gitSha1, sha256: undefined })
    })
  }
}
