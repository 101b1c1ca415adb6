import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { NoProviderError, ORIGIN_MISSING_MAX, UPSTREAM_FILES_KNOWN_MAX, UpstreamMismatchError } from '../base/index.ts'
import { positionOf } from '../model/index.ts'
import { Arrivals } from './arrivals.ts'
import type { Claim } from './claims.ts'
import type { DescribedModel } from './components.ts'
import type { SharedWork } from './shared-work.ts'
import type { Caller, UpstreamFile, UpstreamModel } from './types.ts'
import { contentOf } from './upstream-model.ts'

/** A model that nobody gave is not looked for again for so long, and for twice as long each time: clients that were cut off come back in seconds. */
const MISSING_MS = 30_000
const MISSING_MAX_MS = 600_000
/** Failures of instalments of one peer. Each may cost a search of 8 s, or a download. */
const STRIKES_MAX = 3
/** Of a peer that had not what it said: it may have been busy. */
const DISTRUST_MS = 20_000
const RAW = 0x55
const SHA2_256 = 0x12

/** A revision of a repository, as far as this node has come with it. */
export class KnownModel {
  #model: UpstreamModel
  /** Names it among peers, in hex: nobody learns a repository's name from it who does not know it. */
  readonly key: string
  /** The same for the content router. */
  readonly name: CID
  /** Models that somebody took for it and that are not. */
  readonly refused = new Set<string>()
  /** Models that nobody gave, whoever said to have them, and until when nobody is believed that does. */
  readonly #missing = new Map<string, { ms: number, until: number }>()
  /** Peers that got nothing new for long, or had not what they said, and until when nobody listens to them. */
  readonly distrusted = new Map<string, number>()
  /** All files are verified, and it is linked here. */
  sure = false
  finding: SharedWork<string> | undefined
  /** Whose token `finding` asks the upstream with; undefined when it is over. */
  findingFor: Caller | undefined
  /** Why it could not be had a moment ago. */
  failed: { error: Error, until: number } | undefined
  /** Of a fetch that runs, by this node or a peer. */
  readonly arrivals: Arrivals
  /** How often instalments of a peer could not be had, or were others than it said. */
  readonly #strikes = new Map<string, number>()
  /** By the model CID and the path. */
  readonly verifying = new Map<string, SharedWork<void>>()
  /** The model was in this store before a peer named it, for another reason. */
  wasHere = false
  /** The peer that fetches it, while it is followed. */
  fetcher: readonly string[] = []
  /** Peers that said to have it. */
  holders: readonly string[] = []
  #cid: string | undefined
  /** Files of that model whose bytes were compared here with the upstream's word, hash by hash. */
  readonly #verified = new Set<string>()
  /** File indexes by path: those whose bytes are what the upstream says, in whatever model they are, and those of the model that a peer named. */
  readonly #compared = new Map<string, string>()
  #named = new Map<string, string>()
  /** The reverse of that. */
  #pathsOf = new Map<string, string[]>()

  constructor (model: UpstreamModel, arrivals = new Arrivals()) {
    this.#model = model
    this.arrivals = arrivals
    this.key = keyOf(model)
    this.name = CID.createV1(RAW, Digest.create(SHA2_256, Buffer.from(this.key, 'hex')))
  }

  get model (): UpstreamModel { return this.#model }
  get repo (): string { return this.model.repo }
  get commit (): string { return this.model.commit }

  /** The model CID: of one that a peer named, a hint. */
  get cid (): string | undefined { return this.#cid }

  isVerified (cid: string, path: string): boolean { return this.#cid === cid && this.#verified.has(path) }
  get isWhole (): boolean { return this.model.files.every(({ path }) => this.#verified.has(path)) }

  /**
   * Of `file`, and of all files with the same blocks that should have the same content. Neither is enough alone: who made the model named other
   * blocks for that content, perhaps, or these blocks for another content.
   */
  verify (file: UpstreamFile): void {
    const { files } = this.model
    if (this.#cid !== undefined) this.#missing.delete(this.#cid)
    this.#verified.add(file.path)
    for (const path of this.#pathsOf.get(this.#named.get(file.path) ?? '') ?? []) {
      const other = files[positionOf(files, path)]
      if (other !== undefined && contentOf(other) === contentOf(file)) this.#verified.add(path)
    }
  }

  /** An instalment of this peer could not be had, or (`isLie`) was another one. */
  strike (peerId: string, isLie: boolean): void { this.#strikes.set(peerId, isLie ? Infinity : (this.#strikes.get(peerId) ?? 0) + 1) }

  /** Instalments of this peer are worth to be looked at. */
  takesFrom (peerId: string): boolean { return (this.#strikes.get(peerId) ?? 0) < STRIKES_MAX }

  /** Another attempt: what failed then may be had now. */
  pardon (): void {
    for (const [peerId, strikes] of this.#strikes) if (strikes < Infinity) this.#strikes.delete(peerId)
  }

  /** A file with this index was read, and is what the upstream says. */
  compared (path: string, index: string): void {
    this.#compared.set(path, index)
    if (this.#named.get(path) === index) this.#verified.add(path)
  }

  /** A peer named it: what was compared of another model says nothing about this one, but for files that have the same index. */
  hint ({ cid, files }: DescribedModel, { wasHere, from }: { wasHere: boolean, from: readonly string[] }): void {
    this.holders = from
    if (this.#cid === cid) return
    this.forget()
    this.#cid = cid
    this.wasHere = wasHere
    for (const { path, index } of files) {
      if (index === undefined) continue
      this.#named.set(path, index)
      const paths = this.#pathsOf.get(index)
      if (paths === undefined) this.#pathsOf.set(index, [path])
      else paths.push(path)
      if (this.#compared.get(path) === index) this.#verified.add(path)
    }
  }

  /** What the upstream says today: a repository may be gated, or opened, long after a commit; and what no model holds only the upstream knows. */
  learn ({ restricted, foreign }: UpstreamModel): void {
    if (this.#model.restricted !== restricted || this.#model.foreign?.length !== foreign?.length) this.#model = { ...this.#model, restricted, foreign }
  }

  /** Whether this claim may be right. */
  listensTo ({ peerId, cid }: Claim, now: number): boolean {
    return (this.distrusted.get(peerId) ?? -Infinity) < now && (cid === undefined || this.looksFor(cid, now))
  }

  /** False of a model that is another one, or that nobody had a moment ago. */
  looksFor (cid: string, now: number): boolean {
    return !this.refused.has(cid) && (this.#missing.get(cid)?.until ?? -Infinity) <= now
  }

  /** Nobody gave it once, and nothing of it came since. */
  hasMissed (cid: string): boolean { return this.#missing.has(cid) }

  /** Nobody has it, whoever says so; the next who says so is believed later, and later each time. */
  miss (cid: string, now: number): void {
    const before = this.#missing.get(cid)
    if (before !== undefined && before.until > now) return
    const ms = before === undefined ? MISSING_MS : Math.min(2 * before.ms, MISSING_MAX_MS)
    this.#missing.delete(cid)
    this.#missing.set(cid, { ms, until: now + ms })
    for (const oldest of this.#missing.keys()) {
      if (this.#missing.size <= ORIGIN_MISSING_MAX) break
      this.#missing.delete(oldest)
    }
  }

  /** This claim turned out to be wrong. */
  doubt ({ peerId, cid }: Claim, error: unknown, now: number): void {
    this.distrusted.set(peerId, now + DISTRUST_MS)
    if (cid === undefined) return
    if (error instanceof UpstreamMismatchError) this.refused.add(cid)
    else if (error instanceof NoProviderError) this.miss(cid, now)
  }

  /** It is this model, and every file of it was compared. */
  fetched (cid: string): void {
    this.#missing.delete(cid)
    this.trust(cid)
  }

  /** The same of what is linked here, which may be gone. */
  trust (cid: string): void {
    this.#cid = cid
    this.sure = true
    this.refused.delete(cid)
    for (const { path } of this.model.files) this.#verified.add(path)
  }

  /** Nobody has it any more, or it is another one. */
  forget (): void {
    this.#cid = undefined
    this.sure = false
    this.#verified.clear()
    this.#named = new Map()
    this.#pathsOf = new Map()
  }

  get busy (): boolean { return this.finding?.ended === false || this.verifying.size > 0 }
}

/** In hex. A commit names its content, so the mirror it comes from is not in it: nodes with different ones share. */
export function keyOf ({ repo, id, commit }: Pick<UpstreamModel, 'repo' | 'id' | 'commit'>): string {
  return createHash('sha256').update(`hf-origin:${id ?? repo}@${commit}`).digest('hex')
}

/** The ones used last. */
export class KnownModels {
  /** `files`: what is counted for it, files and one more. */
  readonly #byName = new Map<string, { known: KnownModel, files: number }>()
  /** The sum of those. */
  #files = 0

  get (repo: string, commit: string): KnownModel | undefined {
    const name = `${repo}@${commit}`
    const kept = this.#byName.get(name)
    if (kept !== undefined) {
      this.#byName.delete(name) // to the end: used last
      this.#byName.set(name, kept)
    }
    return kept?.known
  }

  /** The same as keep(), of what the upstream said just now. */
  learn (model: UpstreamModel): KnownModel {
    const known = this.keep(model)
    known.learn(model)
    this.#count(known)
    return known
  }

  /** The one that is known, or this one from now on. */
  keep (model: UpstreamModel): KnownModel {
    const before = this.get(model.repo, model.commit)
    if (before !== undefined) return before
    const known = new KnownModel(model, this.#sameAs(model)?.arrivals)
    this.#byName.set(`${model.repo}@${model.commit}`, { known, files: 0 })
    this.#count(known)
    return known
  }

  /** The same by another name: what is on its way is on its way for both. */
  #sameAs (model: UpstreamModel): KnownModel | undefined {
    const key = keyOf(model)
    for (const { known } of this.#byName.values()) if (known.key === key && isDeepStrictEqual(known.model.files, model.files)) return known
    return undefined
  }

  /** Anew: what it holds may have changed. The ones used longest ago make room. */
  #count (known: KnownModel): void {
    const { repo, commit, model } = known
    const kept = this.#byName.get(`${repo}@${commit}`)
    if (kept === undefined) return
    const files = model.files.length + (model.foreign?.length ?? 0) + 1
    this.#files += files - kept.files
    kept.files = files
    for (const [name, oldest] of this.#byName) {
      if (this.#files <= UPSTREAM_FILES_KNOWN_MAX || oldest === kept) break
      if (oldest.known.busy) continue
      this.#byName.delete(name)
      this.#files -= oldest.files
    }
  }
}
