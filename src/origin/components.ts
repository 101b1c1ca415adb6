import type { Libp2p } from '@libp2p/interface'
import type { AbortOptions, Clock, Logger, ProgressOptions, Random } from '../base/index.ts'
import type { ContentRouter, Provider } from '../discovery/router.ts'
import type { KnownName } from './access.ts'
import type { UpstreamFile } from './types.ts'

/** What is found in a model's manifest and indexes. */
export interface DescribedModel {
  cid: string
  files: ReadonlyArray<{ path: string, size: number, sha256: string, gitSha1: string | undefined }>
}

export interface AddResult { cid: string }

export interface PublishOptions extends AbortOptions, ProgressOptions<{ bytesDone: number }> {
  /** Called with each file that is not needed any more. */
  onStored: (path: string) => Promise<void>
}

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
  makeRoom: (bytes: number, what: string) => Promise<void>
  /** Adds a directory. */
  publish: (directory: string, options: PublishOptions) => Promise<AddResult>
  describe: Describe
  /** Loads one file and gives it, piece by piece. */
  read: (cid: string, path: string, options: AbortOptions & Hints) => AsyncIterable<Uint8Array>
  /** Something to send while a file loads: verified, from `offset`. */
  readSome: (cid: string, path: string, range: { offset: number, length: number }, options: AbortOptions & Hints) => Promise<Uint8Array>
  /** How much of a model is on this disk, or in place. */
  held: (cid: string) => 'whole' | 'part' | undefined
  /** Takes a model away that turned out to be another one, unless it has other uses here. */
  discard: (cid: string) => Promise<void>
  /** Names that were fetched here before: all, or those of one repository. */
  names: (repo?: string) => KnownName[]
  /** A file with this content that is whole here, in another model; undefined when there is none. */
  local: LocalFiles
  link: (name: KnownName) => Promise<void>
}
