import type { Libp2p } from '@libp2p/interface'
import type { AbortOptions, Clock, Logger, Random } from '../base/index.ts'
import type { ContentRouter, Provider } from '../discovery/router.ts'
import type { KnownName } from './access.ts'

/** What is found in a model's manifest and indexes. */
export interface DescribedModel {
  cid: string
  files: ReadonlyArray<{ path: string, size: number, sha256: string, gitSha1: string | undefined }>
}

export interface AddResult { cid: string }

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
  /** Adds a directory; `onStored` is called with each file of it that is not needed any more. */
  publish: (directory: string, options: AbortOptions & { onStored: (path: string) => Promise<void> }) => Promise<AddResult>
  describe: (cid: string, options: AbortOptions & { providerTimeoutMs?: number }) => Promise<DescribedModel>
  /** Loads one file and gives it, piece by piece. */
  read: (cid: string, path: string, options: AbortOptions) => AsyncIterable<Uint8Array>
  /** Something to send while a file loads: verified, from `offset`. */
  readSome: (cid: string, path: string, range: { offset: number, length: number }, options: AbortOptions) => Promise<Uint8Array>
  /** Takes a model away that turned out to be another one, unless it has other uses here. */
  discard: (cid: string) => Promise<void>
  /** Names that were fetched here before. */
  names: () => KnownName[]
  link: (name: KnownName) => Promise<void>
}
