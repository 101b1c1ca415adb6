import type { Libp2p } from '@libp2p/interface'
import type { AbortOptions, Clock, Logger, ProgressOptions, Random } from '../base/index.ts'
import type { ContentRouter, Provider } from '../discovery/router.ts'
import type { KnownName } from './access.ts'
import type { ArrivedFile, UpstreamFile } from './types.ts'

/** What is found in a model's manifest and indexes. */
export interface DescribedModel {
  cid: string
  /** `index`: the file index CID, which names the bytes, when it is known. */
  files: ReadonlyArray<{ path: string, size: number, sha256: string, gitSha1: string | undefined, index?: string }>
}

export interface PublishOptions extends AbortOptions, ProgressOptions<{ bytesDone: number }> {
  /** Called with each file that is not needed any more. */
  onStored: (path: string) => Promise<void>
  /** Called with the model CID before the store has it. */
  onNamed: (cid: string) => Promise<void>
}

/** Adds a directory as a model that is nobody's, and is not evicted until `letGo` is called. */
export type AddInstalment = (directory: string, options: PublishOptions) => Promise<{ cid: string, letGo: () => void }>

/** Peers that said to have the model: asked before anybody is searched for. In a large swarm that just began it is announced nowhere yet. */
export interface Hints { from?: readonly string[] }

export type Describe = (cid: string, options: AbortOptions & Hints & { providerTimeoutMs?: number }) => Promise<DescribedModel>

export type LocalFiles = (file: UpstreamFile, options: AbortOptions) => AsyncIterable<Uint8Array> | undefined

/** The part of a node that models of the upstream go into, and come out of for others. */
export interface OriginComponents {
  network: Libp2p
  router: ContentRouter
  clock: Clock
  random: Random
  logger: Logger
  isBanned: (peerId: string) => boolean
  learn: (provider: Provider) => Promise<void>
  /** Makes room for `bytes` in the store, of which `newBytes` are not on its volume yet. Throws QuotaExceededError, OutOfSpaceError. */
  makeRoom: (bytes: number, what: string, options: { newBytes: number }) => Promise<void>
  addInstalment: AddInstalment
  /** Publishes the model of all files of these, which are here. */
  combine: (cids: readonly string[], options: AbortOptions) => Promise<{ cid: string }>
  /** Makes it a model of this store, with the blocks that are here in others; nothing is loaded. */
  adopt: (cid: string, options: AbortOptions & Hints) => Promise<void>
  /** A file of a model that is whole here; undefined when it is not. */
  openWhole: (cid: string, path: string) => ArrivedFile | undefined
  /** Until the returned function is called it is not evicted. */
  hold: (cid: string) => () => void
  describe: Describe
  /** Loads one file and gives it, piece by piece. */
  read: (cid: string, path: string, options: AbortOptions & Hints) => AsyncIterable<Uint8Array>
  /** Something to send while a file loads: verified, from `offset`. */
  readSome: (cid: string, path: string, range: { offset: number, length: number }, options: AbortOptions & Hints) => Promise<Uint8Array>
  /** How much of a model is on this disk, or in place. */
  held: (cid: string) => 'whole' | 'part' | undefined
  /** Takes a model away that nobody needs, unless it has other uses here. False: somebody reads it just now. */
  discard: (cid: string) => Promise<boolean>
  /** Names that were fetched here before: all, or those of one repository. */
  names: (repo?: string) => KnownName[]
  /** A file with this content that is whole here, in another model; undefined when there is none. */
  local: LocalFiles
  link: (name: KnownName) => Promise<void>
}
