import { copy } from './copy.ts'
import { floor } from './floor.ts'
import { helia } from './helia.ts'
import { aria2, curl } from './http.ts'
import { iroh } from './iroh.ts'
import { kubo } from './kubo.ts'
import { libtorrent } from './libtorrent.ts'
import { sendme } from './sendme.ts'
import { shoal } from './shoal.ts'
import type { Contender } from './types.ts'

/** In the order in which they take turns. */
export const contenders: readonly Contender[] = [
  floor, shoal('lane'), shoal('stream'), iroh, sendme, libtorrent('plain'), libtorrent('encrypted'), curl(), aria2(4), aria2(16), kubo, helia, copy
]
