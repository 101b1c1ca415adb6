import assert from 'node:assert/strict'
import { commonDirectory } from '../../../src/api/common-directory.ts'

describe('the directory of files in place', () => {
  const rows: Array<[string, Array<[string, string | undefined]>, string | undefined]> = [
    ['is where all stand by their paths', [['a.bin', '/models/x/a.bin'], ['sub/b.bin', '/models/x/sub/b.bin']], '/models/x'],
    ['may be the root', [['a.bin', '/a.bin']], '/'],
    ['is found from a file further down', [['sub/b.bin', '/models/x/sub/b.bin']], '/models/x'],
    ['is none where they lie apart', [['a.bin', '/models/x/a.bin'], ['b.bin', '/models/y/b.bin']], undefined],
    ['is none where one has another name', [['a.bin', '/models/x/a.bin'], ['b.bin', '/models/x/other']], undefined],
    ['is none where a name only ends alike', [['a.bin', '/models/x/data.bin']], undefined],
    ['is none where one is in memory', [['a.bin', '/models/x/a.bin'], ['b.bin', undefined]], undefined],
    ['is none without files', [], undefined]
  ]
  for (const [what, files, directory] of rows) {
    it(what, () => { assert.equal(commonDirectory(files.map(([path, localPath]) => ({ path, localPath }))), directory) })
  }
})
