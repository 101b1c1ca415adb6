import { join } from 'node:path'
import { mkdir, rm } from 'node:fs/promises'
import { DESCRIBE_MS, NodeStoppedError, ORIGIN_PEEK_BYTES_MAX, Semaphore, UPSTREAM_PASSED_MAX, UpstreamMismatchError, UpstreamRefusedError, asError, throwIfAborted, withSignal } from '../base/index.ts'
import { Access, type KnownName } from './access.ts'
import { checkDescription } from './check-description.ts'
import type { Claim } from './claims.ts'
import { Comparisons } from './comparisons.ts'
import type { OriginComponents } from './components.ts'
import { removeDownload, type Download } from './download.ts'
import { fetchRevision } from './fetch.ts'
import { findRevision } from './find.ts'
import { Following } from './following.ts'
import { Found } from './found.ts'
import { LINGER_MS as INSTALMENT_LINGER_MS, type InstalmentBook } from './instalment-book.ts'
import type { Instalments } from './instalments.ts'
import { KnownModel, KnownModels, keyOf } from './known-model.ts'
import type { Leftovers } from './leftovers.ts'
import { passOn } from './pass.ts'
import { SharedWork } from './shared-work.ts'
import { FetchSlots } from './slots.ts'
import { OriginSwarm } from './swarm.ts'
import type { Caller, ModelOrigin, OriginCounters, OriginFetch, OriginModel, OriginStatus } from './types.ts'
import { bytesOf } from './upstream-model.ts'
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

/** Of a running fetch. */
interface Here { download: Download, instalments: Instalments }

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
  /** What is here of running fetches, by key. */
  readonly #here = new Map<string, Here>()
  readonly #book: InstalmentBook
  /** Of Found. */
  readonly comparisons: Comparisons
  /** Somebody asked for the instalments of these, and may be loading them. */
  readonly #followed = new Set<string>()
  readonly #fetches = new Map<KnownModel, OriginFetch>()
  readonly #telling = new Set<Promise<void>>()
  readonly #slots = new FetchSlots()
  readonly #downloads = new Set<Download>()
  readonly #passing = new Semaphore(UPSTREAM_PASSED_MAX)
  readonly #stopping = new AbortController()
  readonly #counters: OriginCounters = { requests: { ok: 0, refused: 0, busy: 0, failed: 0 }, bytes: 0, fetched: 0, failed: 0, shared: 0 }

  constructor (components: OriginComponents, init: OriginInit) {
    this.#components = components
    this.#init = init
    const { clock, random, logger } = components
    const { signal } = this.#stopping
    this.#upstream = new Upstream({ url: init.upstream, userAgent: init.userAgent, clock, counters: this.#counters })
    this.#swarm = new OriginSwarm(components, {
      claimOf: key => this.#claimOf(key),
      peek: async ({ key, path, offset, length }) => await this.#here.get(key)?.download.peek(path, offset, length),
      instalmentsOf: key => {
        const here = this.#here.get(key)
        if (here === undefined) return []
        this.#followed.add(key)
        return here.instalments.cids
      }
    })
    this.#book = init.leftovers.instalments
    this.comparisons = new Comparisons({ ...components, book: this.#book, linkWhole: async (known, revision) => { await this.#linkWhole(known, revision) }, signal })
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
    for (const name of this.#components.names()) {
      this.#have(name)
      if (this.#components.held(name.cid) === 'whole') await this.#book.retire(keyOf(name), 0)
    }
  }

  async stop (): Promise<void> {
    this.#stopping.abort(new NodeStoppedError('the node is stopping'))
    await this.#swarm.stop()
    await Promise.all(this.#telling)
    await this.#access.stop()
    await Promise.all([...this.#fetches.keys()].map(async known => { await known.finding?.over() }))
    this.#upstream.stop()
    await this.#book.stop()
    if (this.#init.isTemporary) await rm(this.#init.leftovers.directory, { recursive: true, force: true })
  }

  status (): OriginStatus {
    for (const [known, fetch] of this.#fetches) {
      const here = this.#here.get(known.key)
      if (here !== undefined) fetch.bytesDone = here.download.bytesDone
    }
    return { upstream: this.#upstream.url, fetches: [...this.#fetches.values()].map(fetch => ({ ...fetch })), counters: structuredClone(this.#counters) }
  }

  /** The repository that is on its way and that this instalment is a part of. */
  wholeOf (cid: string): string | undefined {
    for (const { key, repo } of this.#fetches.keys()) if (this.#book.holds(key, cid)) return repo
    return undefined
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

  /** Of Found: some bytes to go on with, compared with nothing yet. */
  async peek (known: KnownModel, path: string, offset: number, given: { length: number, signal: AbortSignal }): Promise<Uint8Array | undefined> {
    const { signal } = given
    const length = Math.min(given.length, ORIGIN_PEEK_BYTES_MAX)
    if (known.cid !== undefined) return await this.#components.readSome(known.cid, path, { offset, length }, { signal, from: known.holders })
    const instalment = known.arrivals.instalment(path)
    if (instalment !== undefined) return await this.#components.readSome(instalment.cid, path, { offset, length }, { signal, from: known.fetcher })
    const here = this.#here.get(known.key)
    if (here !== undefined) return await here.download.peek(path, offset, length)
    const peerId = this.#fetches.get(known)?.peerId
    return peerId === undefined ? undefined : await this.#swarm.peek(peerId, { key: known.key, path, offset, length }, signal)
  }

  /** Of Found: a file that is in no model, as it comes. */
  async * pass ({ model }: KnownModel, path: string, { offset, length }: { offset: number, length: number }, caller: Caller, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const file = model.foreign?.find(file => file.path === path)
    if (file === undefined) throw new TypeError(`${path} is no foreign file of ${model.repo}`)
    const either = AbortSignal.any([signal, this.#stopping.signal])
    const leave = await this.#passing.enter(either)
    try {
      yield * passOn(this.#upstream, { model, file, caller }, { offset, end: offset + length }, either)
    } finally {
      leave()
    }
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
    do {
      const own = await this.#underOtherName(known, revision, signal)
      if (own !== undefined) return own
    } while (this.#other(known) !== undefined)
    known.arrivals.clear()
    this.#book.begin(known.key)
    this.#followed.delete(known.key)
    const progress: OriginFetch = { repo: known.repo, commit: known.commit, phase: 'asking', peerId: undefined, startedAt: clock.now(), bytesDone: 0, bytesTotal: bytesOf(known.model) }
    const claim = (claim: Claim | undefined, here?: Here): void => {
      if (claim === undefined) this.#claims.delete(known.key)
      else this.#claims.set(known.key, claim)
      if (here === undefined) this.#here.delete(known.key)
      else this.#here.set(known.key, here)
    }
    const over = new AbortController()
    this.#fetches.set(known, progress)
    const following = new Following({ ...this.#components, swarm: this.#swarm }, known, AbortSignal.any([signal, over.signal]))
    try {
      const hasSlot = (): boolean => this.#slots.hasOne(known.model)
      const fetch = async (): Promise<string> => {
        const free = this.#slots.take(known.model)
        // It goes on to its end, whoever leaves: it is fetched for all.
        keep(true)
        progress.peerId = undefined
        try {
          return await fetchRevision({ ...this.#components, upstream: this.#upstream, swarm: this.#swarm, book: this.#book }, { known, caller, directory, self, progress, downloads: this.#downloads, claim, signal })
        } finally {
          keep(false)
          free()
        }
      }
      const follows = (peerId: string): void => {
        known.fetcher = [peerId]
        following.look(peerId)
      }
      const { cid, fetched, from } = await findRevision({ ...this.#components, swarm: this.#swarm, hasSlot, fetch }, { known, self, progress, claim, follows, signal })
      const wasHere = this.#components.held(cid) !== undefined && !this.#book.has(cid)
      await this.#book.drop(known.key, cid) // the only one is the model
      if (fetched) {
        known.fetched(cid)
        this.#counters.fetched++
        await this.#link(known, revision)
        logger.info({ repo: known.repo, commit: known.commit, cid }, 'fetched from the upstream and published')
        const { foreign } = known.model
        if (foreign !== undefined && foreign.length > 0) logger.warn({ repo: known.repo, files: foreign.slice(0, 4).map(({ path }) => path), count: foreign.length, bytes: bytesOf({ files: foreign }) }, 'these files have names that no model can hold, and come from the upstream to each who asks')
      } else {
        const described = await this.#components.describe(cid, { signal })
        known.hint(described, { wasHere, from })
        this.#counters.shared++
        await removeDownload(join(directory, known.key))
        await this.#adopt(known, revision, signal)
      }
      if (this.#components.held(cid) === undefined) await this.#book.abandon(known.key) // it could not be registered
      else await this.#book.retire(known.key, fetched && !this.#followed.has(known.key) ? 0 : INSTALMENT_LINGER_MS)
      return cid
    } catch (error) {
      known.arrivals.clear() // nobody begins to load an instalment after this
      await this.#book.abandon(known.key)
      if (!signal.aborted) {
        this.#counters.failed++
        // A refusal is for this caller alone.
        if (error instanceof UpstreamRefusedError) this.#access.forget(known.repo, revision, caller)
        else known.failed = { error: asError(error), until: clock.monotonic() + (error instanceof UpstreamMismatchError ? WRONG_MS : FAILED_MS) }
        logger.warn({ repo: known.repo, commit: known.commit, error: asError(error).message }, 'a model could not be fetched from the upstream')
      }
      throw error
    } finally {
      over.abort(new NodeStoppedError('nobody is followed any more'))
      await following.over()
      known.arrivals.clear()
      known.fetcher = []
      this.#followed.delete(known.key)
      this.#fetches.delete(known)
      this.#tell(known.key)
      if (!this.#claims.has(known.key)) this.#components.router.withdraw([known.name])
    }
  }

  #other ({ key, repo }: KnownModel): KnownModel | undefined { return [...this.#fetches.keys()].find(other => other.key === key && other.repo !== repo) }

  /** The same commit of a repository that is asked for by two names is looked for once: what lies here, and is said of it to peers, is one. */
  async #underOtherName (known: KnownModel, revision: string, signal: AbortSignal): Promise<string | undefined> {
    for (let other = this.#other(known); other?.finding !== undefined; other = this.#other(known)) await withSignal(other.finding.over(), signal)
    const cid = this.#claimOf(known.key)?.cid
    if (cid === undefined || !known.looksFor(cid, this.#components.clock.monotonic())) return undefined
    try {
      checkDescription(known, await this.#components.describe(cid, { signal }), 'this disk')
    } catch (error) {
      throwIfAborted(signal)
      this.#components.logger.info({ repo: known.repo, cid, error: asError(error).message }, 'what is here of a repository by another name is not taken')
      return undefined
    }
    known.fetched(cid)
    await this.#link(known, revision)
    return cid
  }

  /** What came of it before it was there goes into the model, which is whole, perhaps, by now. */
  async #adopt (known: KnownModel, revision: string, signal: AbortSignal): Promise<void> {
    const { cid } = known
    if (cid !== undefined && !this.#book.isEmpty(known.key)) {
      try {
        await this.#components.adopt(cid, { signal, from: known.holders })
      } catch (error) {
        throwIfAborted(signal)
        this.#components.logger.info({ repo: known.repo, cid, error: asError(error).message }, 'what came of a model before it was there stays beside it')
      }
    }
    await this.#linkWhole(known, revision)
  }

  /** Once all of it was compared. */
  async #linkWhole (known: KnownModel, revision: string): Promise<void> {
    if (known.sure || !known.isWhole) return
    known.sure = true
    await this.#link(known, revision)
  }

  /** Names it, and tells others: from now on this node has it. */
  async #link (known: KnownModel, revision: string): Promise<void> {
    const { cid, commit, repo, model: { restricted, id } } = known
    if (cid === undefined) return
    for (const each of new Set([revision, commit])) await this.#name({ repo, revision: each, commit, restricted, cid, id })
    this.#have({ repo, revision, commit, restricted, cid, id })
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

  #have ({ repo, commit, cid, id }: KnownName): void {
    const known = this.#known.get(repo, commit) ?? new KnownModel({ repo, commit, restricted: true, files: [], foreign: undefined, id })
    const { key } = known
    this.#claims.set(key, { peerId: this.#init.self, state: 'have', cid, bytesDone: 0, bytesTotal: 0 })
    this.#tell(key)
    // In its turn: who fetched it has told at once, and one that is found is enough.
    if (this.#components.held(cid) === 'whole') this.#components.router.announce([known.name])
  }

  async #describe ({ repo, commit, restricted, cid, id }: KnownName): Promise<KnownModel> {
    const { files } = await this.#components.describe(cid, { signal: this.#stopping.signal, providerTimeoutMs: DESCRIBE_MS })
    return this.#known.keep({
      repo,
      commit,
      restricted,
      id,
      foreign: undefined,
      files: files.map(({ path, size, sha256, gitSha1 }) => gitSha1 === undefined ? { path, size, oid: sha256.slice(0, 40), sha256 } : { path, size, oid: gitSha1, sha256: undefined })
    })
  }
}
