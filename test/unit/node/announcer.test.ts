import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { Bitfield, MiB } from '../../../src/base/index.ts'
import { CidList } from '../../../src/model/index.ts'
import { Announcer, type AnnouncerComponents } from '../../../src/node/announcer.ts'
import type { StoredFile, StoredModel } from '../../../src/storage/store.ts'

const BLOCKS = 1_300
const FILES = 3

let made = 0

function cidOf (): CID {
  const digest = new Uint8Array(32)
  new DataView(digest.buffer).setUint32(0, made++)
  return CID.createV1(0x55, Digest.create(0x1e, digest))
}

function numberOf (cid: CID): number { return Buffer.from(cid.multihash.digest).readUInt32BE(0) }

function fileOf (): StoredFile {
  const cids = Array.from({ length: BLOCKS }, cidOf)
  const blocks = new CidList(Buffer.concat(cids.map(cid => cid.bytes)))
  return { present: Bitfield.full(BLOCKS), index: { cid: cidOf(), size: BLOCKS * 4 * MiB, sizes: cids.map(() => 4 * MiB), blocks } } as unknown as StoredFile
}

/** An announcer over a store of so many models, and what it told a router that only writes it down. */
class Setting {
  readonly models: StoredModel[]
  readonly announcer: Announcer
  readonly told = new Set<number>()
  readonly listeners = new Map<string, (event: unknown) => void>()
  /** How often it asked for all models, and for who has one. */
  lists = 0
  asked = 0
  keys = 0

  constructor (models: number) {
    this.models = Array.from({ length: models }, (_, i) => ({ cid: `m${i}`, manifest: { cid: cidOf() }, files: Array.from({ length: FILES }, fileOf) }) as unknown as StoredModel)
    const store = {
      models: () => { this.lists++; return [...this.models] },
      model: (cid: string) => this.models.find(model => model.cid === cid),
      findBlock: () => undefined,
      events: { on: (name: string, listener: (event: unknown) => void) => { this.listeners.set(name, listener); return () => { this.listeners.delete(name) } } }
    }
    const router = {
      announce: (cids: Iterable<CID>) => { for (const cid of cids) { this.told.add(numberOf(cid)); this.keys++ } },
      withdraw: (cids: Iterable<CID>) => { for (const cid of cids) this.told.delete(numberOf(cid)) }
    }
    const exchange = { holders: () => { this.asked++; return [] } }
    this.announcer = new Announcer({ store, router, exchange } as unknown as AnnouncerComponents, 'adaptive')
  }

  async allTold (): Promise<void> { while (this.told.size < this.models.length * (1 + FILES * BLOCKS)) await turn() }

  toldOf (model: StoredModel): number { return [model.manifest.cid, ...model.files.flatMap(file => [...file.index.blocks])].filter(cid => this.told.has(numberOf(cid))).length }
}

describe('what is announced at start', () => {
  it('is all that is here, some hundred keys in each turn of the event loop', async () => {
    const setting = new Setting(5)
    setting.announcer.start()
    let most = setting.keys
    while (setting.keys < 5 * FILES * BLOCKS) {
      const before = setting.keys
      await turn()
      most = Math.max(most, setting.keys - before)
    }
    await setting.allTold()
    assert.ok(most < 1_100, `${most} keys in one turn`)
    await setting.announcer.stop()
  })

  it('is nothing of a model that was removed meanwhile, and nothing more after the stop', async () => {
    const setting = new Setting(5)
    setting.announcer.start()
    await turn()
    const [removed] = setting.models.splice(3, 1) as [StoredModel]
    setting.listeners.get('model:removed')?.({ cid: removed.cid })
    await setting.allTold()
    assert.equal(setting.toldOf(removed), 0)
    await setting.announcer.stop()
    const stopping = new Setting(5)
    stopping.announcer.start()
    await stopping.announcer.stop()
    const { keys } = stopping
    await turn()
    assert.equal(stopping.keys, keys)
    assert.ok(stopping.toldOf(stopping.models[4] as StoredModel) < 2)
  })
})

describe('a file that became complete', () => {
  it('is announced with a look at the models it is part of, and at no others', async () => {
    const setting = new Setting(20)
    const [first] = setting.models as [StoredModel]
    setting.announcer.start()
    await setting.allTold()
    setting.lists = setting.asked = 0
    setting.listeners.get('file:complete')?.({ file: first.files[0] })
    assert.deepEqual([setting.lists, setting.asked], [0, 1])
    await setting.announcer.stop()
  })
})
