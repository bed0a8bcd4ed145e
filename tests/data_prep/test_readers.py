"""Every dialect of every format gives the shape, or says why it does not."""

import base64
import gzip
import io
import json
import re
import struct

import numpy as np
import pytest
import trimesh

from data_prep import mesh_files
from data_prep import trees
from data_prep import voxelize
from data_prep.readers import polygons

CUBE = trimesh.creation.box((1.0, 0.72, 0.43))
V = [[round(float(x), 6) for x in v] for v in CUBE.vertices]
# The corners of trimesh's box count in binary: x slow, z fast.
QUADS = [
  [0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4],
  [1, 3, 7, 5],
]  # fmt: skip
TRIANGLES = CUBE.faces.tolist()
MIXED = [*QUADS[:-1], [1, 3, 7], [7, 5, 1]]
# One strip around, and one for each lid, with the sign that ends a strip.
STRIP = [0, 1, 2, 3, 6, 7, 4, 5, 0, 1, -1, 0, 2, 4, 6, -1, 1, 3, 5, 7]


def row(*words):
  return ' '.join(map(str, words))


def off(head='OFF\n', faces=TRIANGLES, corner=(), colour=(), counts=None):
  """The box as OFF."""
  counts = (len(V), len(faces), 0) if counts is None else counts
  lines = [row(*v, *corner) for v in V]
  lines += [row(len(f), *f, *colour) for f in faces]
  return f'{head}{row(*counts)}\n' + '\n'.join(lines) + '\n'


def binary_off(faces=QUADS, colour=(0.5, 0.5, 0.5)):
  data = struct.pack('>3i', len(V), len(faces), 0)
  data += np.array(V, '>f4').tobytes()
  for f in faces:
    data += struct.pack(f'>i{len(f)}ii', len(f), *f, len(colour))
    data += struct.pack(f'>{len(colour)}f', *colour)
  return b'OFF BINARY\n' + data


def obj(corner='{}', faces=QUADS, start=1):
  lines = ['mtllib none.mtl', 'o box', *('v ' + row(*v) for v in V), 'vt 0 0']
  lines += ['vn 0 0 1', 'g a b', 'usemtl none', 's off']
  lines += ['f ' + row(*(corner.format(i + start) for i in f)) for f in faces]
  return '\n'.join(lines) + '\n'


def negative_obj():
  """Each face right behind its own corners; counted back from there."""
  lines = []
  for f in QUADS:
    lines += ['v ' + row(*V[i]) for i in f] + ['f -4 -3 -2 -1']
  return '\n'.join(lines)


def ply(faces=TRIANGLES, order='', extra=False, name='vertex_indices'):
  """The box as PLY, with properties that nobody asked for."""
  more = 'property uchar red\n' if extra else ''
  head = (
    f'ply\nformat {FORMAT[order]} 1.0\ncomment TextureFile photo.jpg\n'
    f'obj_info scanned\nelement vertex {len(V)}\nproperty float x\n'
    f'{more}property float y\nproperty double z\nelement face {len(faces)}\n'
    f'{"property list uchar float texcoord" + chr(10) if extra else ""}'
    f'property list uchar int {name}\nelement other 1\nproperty int a\n'
    'end_header\n'
  )
  rows = []
  for x, y, z in V:
    rows.append([('f', x), *([('B', 7)] if extra else []), ('f', y), ('d', z)])
  for f in faces:
    some = [('B', 2), ('f', 0.5), ('f', 0.25)] if extra else []
    rows.append([*some, ('B', len(f)), *(('i', i) for i in f)])
  rows.append([('i', 3)])
  if not order:
    return (
      head.encode()
      + '\n'.join(row(*(value for _, value in r)) for r in rows).encode()
    )
  return head.encode() + b''.join(
    struct.pack(order + kind, value) for r in rows for kind, value in r
  )


FORMAT = {
  '': 'ascii', '<': 'binary_little_endian', '>': 'binary_big_endian'
}  # fmt: skip


def body_in_one_line(data):
  head, end, body = data.partition(b'end_header\n')
  return head + end + body.replace(b'\n', b' ')


def strips(split):
  head = (
    f'ply\nformat ascii 1.0\nelement vertex {len(V)}\nproperty float x\n'
    'property float y\nproperty float z\nelement tristrips '
  )
  parts = [STRIP]
  if split:
    parts = [STRIP[:10], STRIP[11:15], STRIP[16:]]
  body = [row(*v) for v in V] + [row(len(p), *p) for p in parts]
  return (
    f'{head}{len(parts)}\nproperty list int int vertex_indices\nend_header\n'
    + '\n'.join(body)
  )


STL = trimesh.exchange.stl.export_stl(CUBE)
TEXT_STL = trimesh.exchange.stl.export_stl_ascii(CUBE)
FACETS = TEXT_STL.split('\n', 1)[1]


def gltf(mode=4, index='<u2', node=None, uri=None, **changes):
  """The box as glTF, turned so that y is up; its data within the JSON."""
  points = np.array(V, '<f4')[:, [0, 2, 1]] * np.float32([1, 1, -1])
  corners = np.array(TRIANGLES).ravel()
  if mode == 5:  # a strip that is cut by triangles of no area.
    corners = np.array([*STRIP[:10], 1, 0, *STRIP[11:15], 6, 1, *STRIP[16:]])
  data = points.tobytes() + corners.astype(index).tobytes()
  kinds = {'|u1': 5121, '<u2': 5123, '<u4': 5125}
  coded = 'data:application/octet-stream;base64,' + (
    base64.b64encode(data).decode()
  )
  scene = {
    'asset': {'version': '2.0'},
    'scene': 0,
    'scenes': [{'nodes': [0]}],
    'nodes': [{'children': [1]}, {'mesh': 0}] if node is None else node,
    'meshes': [
      {
        'primitives': [
          {'attributes': {'POSITION': 0}, 'indices': 1, 'mode': mode}
        ]
      }
    ],
    'accessors': [
      {'bufferView': 0, 'componentType': 5126, 'count': 8, 'type': 'VEC3'},
      {
        'bufferView': 1,
        'componentType': kinds[np.dtype(index).str],
        'count': len(corners),
        'type': 'SCALAR',
      },
    ],
    'bufferViews': [
      {'buffer': 0, 'byteLength': 96},
      {'buffer': 0, 'byteOffset': 96, 'byteLength': len(data) - 96},
    ],
    'buffers': [{'byteLength': len(data), 'uri': uri or coded}],
  } | changes
  return json.dumps(scene), data


def glb(scene, data=None):
  parts = [(b'JSON', scene.encode() + b' ' * (-len(scene) % 4))]
  if data is not None:
    parts.append((b'BIN\0', data + b'\0' * (-len(data) % 4)))
  body = b''.join(struct.pack('<I', len(b)) + k + b for k, b in parts)
  return b'glTF' + struct.pack('<II', 2, 12 + len(body)) + body


def own_buffer():
  scene, data = gltf()
  scene = json.loads(scene)
  del scene['buffers'][0]['uri']
  return glb(json.dumps(scene), data)


# Scaled, turned and moved by nodes in nodes, so that the box comes out again.
HALF = float(np.sqrt(0.5))
NODES = [
  {'scale': [2, 2, 2], 'children': [1]},
  {'rotation': [0, 0, HALF, HALF], 'children': [2]},
  {'matrix': [0.5, 0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0.5, 0, 3, 4, 5, 1],
   'children': [3]},
  {'rotation': [0, 0, -HALF, HALF], 'mesh': 0},
]  # fmt: skip

FILES = {
  'plain.off': off(),
  'glued.off': off('OFF'),
  'small_letters.off': off('off\n'),
  'one_line.off': off().replace('\n', ' '),
  'dos.off': off().replace('\n', '\r\n'),
  'mac.off': off().replace('\n', '\r'),
  'mark.off': b'\xef\xbb\xbf' + off().encode(),
  'utf16.off': off().encode('utf-16'),
  'comment_before.off': off('# a box\nOFF # of twelve\n\n'),
  'comment_after_counts.off': off().replace(' 0\n', ' 0\n# then corners\n', 1),
  'comment_in_faces.off': off().replace('\n3 ', ' # 9 9\n# 3 0 1 2\n3 '),
  'comment_at_end.off': off() + '# 3 0 1 2',
  'latin1.off': b'# a b\xf6x\n' + off().encode(),
  'two_counts.off': off(counts=(8, 12)),
  'two_counts_quads.off': off(counts=(8, 6), faces=QUADS),
  'counts_apart.off': off().replace('8 12 0', '8\n12\n0'),
  'counts_on_two_lines.off': off().replace('8 12 0', '8 12\n0'),
  'counts_in_head.off': off('OFF '),
  'empty_lines.off': off().replace('\n', '\n\n'),
  'quads.off': off(faces=QUADS),
  'glued_quads.off': off('OFF', faces=QUADS),
  'mixed.off': off(faces=MIXED),
  'two_lines.off': off(faces=QUADS).replace('\n4 0 ', '\n4 0\n '),
  'every_word_a_line.off': off(faces=QUADS).replace(' ', '\n'),
  'index_colour.off': off(colour=[7]),
  'colours.off': off(colour=[255, 0, 0]),
  'alpha.off': off(colour=[0.5, 0.25, 0, 1]),
  'some_colours.off': off(faces=QUADS).replace(' 5\n', ' 5 255 0 0\n'),
  'corner_colours.off': off(corner=[255, 0, 0]),
  'corner_alpha.off': off(corner=[255, 0, 0, 255], faces=QUADS),
  'lines_and_points.off': off(faces=[*QUADS, [0, 7], [3]]),
  'coff.off': off('COFF\n', corner=[1, 0, 0, 1]),
  'coff_three.off': off('COFF\n', corner=[1, 0, 0], colour=[1, 0, 0]),
  'coff_one_line.off': off('COFF\n', corner=[1, 0, 0, 1]).replace('\n', ' '),
  'noff.off': off('NOFF\n', corner=[0, 0, 1]),
  'cnoff.off': off('CNOFF\n', corner=[0, 0, 1, 255, 0, 0, 255], faces=QUADS),
  'stoff.off': off('STOFF\n', corner=[0.5, 0.5]),
  'stcnoff.off': off('STCNOFF\n', corner=[0, 0, 1, 9, 9, 9, 9, 0.5, 0.5]),
  '4off.off': off('4OFF\n', corner=[1]),
  'weights.off': off('4OFF\n', corner=['2']),
  '3_off.off': off('nOFF\n3\n'),
  'binary.off': binary_off(),
  'binary_triangles.off': binary_off(TRIANGLES, ()),
  'plain.obj': obj(),
  'triangles.obj': obj(faces=TRIANGLES),
  'texture.obj': obj('{}/1'),
  'normals.obj': obj('{}//1'),
  'all.obj': obj('{}/1/1'),
  'negative.obj': obj('{}', start=-8),
  'negative_parts.obj': negative_obj(),
  'dos.obj': obj().replace('\n', '\r\n'),
  'mark.obj': b'\xef\xbb\xbf' + obj().encode(),
  'utf16.obj': obj().encode('utf-16'),
  'utf16_big.obj': b'\xfe\xff' + obj().encode('utf-16-be'),
  'utf16_no_mark.obj': obj().encode('utf-16-le'),
  'latin1.obj': b'# St\xfchle\ng St\xfchle\n' + obj().encode(),
  'colours.obj': obj().replace('5\nv', '5 0.5 0.5 0.5\nv'),
  'weights.obj': obj().replace('5\nv', '5 1.0\nv'),
  'tabs.obj': obj().replace(' ', '\t'),
  'indented.obj': obj().replace('\n', '\n   '),
  'backslash.obj': obj().replace(' 4 ', ' \\\n 4 '),
  'comments.obj': obj().replace('\n', ' # f 1 2 3\n# f 1 2 9\n'),
  'lines.obj': obj() + 'l 1 2 3\np 4\n',
  'faces_first.obj': '\n'.join(sorted(obj().split('\n'))),
  'text.ply': ply(),
  'quads.ply': ply(QUADS),
  'mixed.ply': ply(MIXED),
  'one_line.ply': body_in_one_line(ply(QUADS)),
  'dos.ply': ply(QUADS).replace(b'\n', b'\r\n'),
  'index.ply': ply(name='vertex_index'),
  'binary.ply': ply(order='<'),
  'binary_quads.ply': ply(QUADS, '<'),
  'binary_mixed.ply': ply(MIXED, '<'),
  'big.ply': ply(MIXED, '>'),
  'extra.ply': ply(MIXED, '', True),
  'binary_extra.ply': ply(MIXED, '<', True),
  'big_extra.ply': ply(TRIANGLES, '>', True),
  'strip.ply': strips(False),
  'strips.ply': strips(True),
  'trimesh.ply': trimesh.exchange.ply.export_ply(CUBE),
  'binary.stl': STL,
  'count_zero.stl': STL[:80] + b'\0\0\0\0' + STL[84:],
  'solid_binary.stl': b'solid box facet normal'.ljust(80) + STL[80:],
  'solid_zero.stl': b'solid box'.ljust(80, b'\0') + b'\0\0\0\0' + STL[84:],
  'padded.stl': STL + b'\0' * 7,
  'text.stl': TEXT_STL,
  'upper.stl': TEXT_STL.upper(),
  'end_solid.stl': TEXT_STL.replace('endsolid', 'end solid'),
  'dos.stl': TEXT_STL.replace('\n', '\r\n'),
  'mark.stl': b'\xef\xbb\xbf' + TEXT_STL.encode(),
  'latin1.stl': b'solid St\xfchle vertex\n' + FACETS.encode(),
  'no_name.stl': 'solid\n' + FACETS,
  'two_solids.stl': TEXT_STL + TEXT_STL,
  'facets_on_a_line.stl': re.sub(r'\n(?!\s*facet|endsolid)', ' ', TEXT_STL),
  'one_line.stl': ' '.join(TEXT_STL.split()),
  'x.gltf': gltf()[0],
  'bytes.gltf': gltf(index='|u1')[0],
  'strip.gltf': gltf(mode=5)[0],
  'nodes.gltf': gltf(node=NODES)[0],
  'no_scene.gltf': gltf(scenes=[], node=[{'mesh': 0}])[0],
  'no_nodes.gltf': gltf(scenes=[], node=[])[0],
  'uri.glb': glb(gltf(index='<u4')[0]),
  'own.glb': own_buffer(),
}  # fmt: skip


def read(name, data):
  data = data.encode() if isinstance(data, str) else data
  return mesh_files.read_mesh(data, mesh_files.file_type(name))


@pytest.fixture(scope='module')
def expected():
  return voxelize.voxelize(CUBE.vertices, CUBE.faces, 32)


@pytest.mark.parametrize('name', FILES)
def test_every_file_gives_the_same_voxels(name, expected):
  vertices, faces = read(name, FILES[name])
  assert vertices.dtype == np.float64
  np.testing.assert_array_equal(
    voxelize.voxelize(vertices, faces, 32), expected
  )


@pytest.mark.parametrize('name', ['plain.off', 'binary.stl', 'own.glb'])
def test_gzip(name, expected):
  data = FILES[name]
  data = data.encode() if isinstance(data, str) else data
  vertices, faces = read(f'{name}.gz', gzip.compress(data))
  np.testing.assert_array_equal(
    voxelize.voxelize(vertices, faces, 32), expected
  )
  with pytest.raises(ValueError, match='gzip stream has no end'):
    read(f'{name}.gz', gzip.compress(data)[:-9])
  damaged = bytearray(gzip.compress(data))
  damaged[-5] ^= 255
  with pytest.raises(ValueError, match='damaged gzip'):
    read(f'{name}.gz', bytes(damaged))


def test_what_gzip_makes_large_is_not_read(monkeypatch):
  monkeypatch.setattr(mesh_files, '_MOST_BYTES', 100)
  with pytest.raises(ValueError, match='more than the limit of 100'):
    read('x.off.gz', gzip.compress(FILES['plain.off'].encode()))


@pytest.mark.parametrize(
  'name', ['text.stl', 'triangles.obj', 'trimesh.ply', 'own.glb']
)
def test_trimesh_agrees(name):
  """An independent reader, of what it reads right."""
  data = FILES[name]
  data = data.encode() if isinstance(data, str) else data
  mesh = trimesh.load_mesh(
    io.BytesIO(data), file_type=mesh_files.file_type(name), process=False
  )
  vertices, faces = mesh_files.read_any(data, name.split('.')[-1], up='z')
  np.testing.assert_allclose(vertices[faces], mesh.triangles, atol=1e-7)


def test_a_scene_of_trimesh_comes_out_as_it_went_in():
  scene = trimesh.Scene()
  parts = []
  for i, angle in enumerate((0.3, 1.2, 2.5)):
    part = trimesh.creation.box((1, 2 + i, 0.5))
    place = trimesh.transformations.rotation_matrix(angle, (1, 2, 3))
    place[:3, 3] = i, -i, 2 * i
    scene.add_geometry(part, transform=place)
    parts.append(trimesh.transform_points(part.vertices, place)[part.faces])
  data = scene.export(file_type='glb')
  vertices, faces = mesh_files.read_mesh(data, 'glb', up='z')
  np.testing.assert_allclose(vertices[faces], np.concatenate(parts), atol=1e-6)
  turned, _ = mesh_files.read_mesh(data, 'glb')
  # A right-handed turn about x: what was y is z.
  np.testing.assert_allclose(turned, vertices[:, [0, 2, 1]] * (1, -1, 1))


def test_gltf_with_another_file(tmp_path):
  scene, data = gltf(uri='a%20box.bin')
  (tmp_path / 'box.gltf').write_text(scene)
  (tmp_path / 'a box.bin').write_bytes(data)
  shapes = trees.find_shapes(tmp_path)
  with trees.open_shapes(shapes) as opened:
    mesh = mesh_files.read_mesh(
      opened(shapes[0]), 'gltf', resolve=lambda n: opened(shapes[0], n)
    )
    assert len(mesh[1]) == 12
    for name in ('../a box.bin', '/etc/passwd', 'file:///etc/passwd'):
      with pytest.raises(ValueError, match='not beside it'):
        opened(shapes[0], name)
  with pytest.raises(ValueError, match=r"is in another file, 'a%20box\.bin'"):
    mesh_files.read_mesh(scene.encode(), 'gltf')


def test_points_without_faces():
  head = 'ply\nformat ascii 1.0\nelement vertex 3\n' + ''.join(
    f'property float {c}\n' for c in 'xyz'
  )
  data = (head + 'end_header\n0 0 0\n1 2 3\n4 5 6\n').encode()
  vertices, faces = mesh_files.read_any(data, 'ply')
  assert vertices.tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
  assert faces.shape == (0, 3)
  with pytest.raises(ValueError, match='no faces: it is a cloud of 3 points'):
    mesh_files.read_mesh(data, 'ply')


CLOUD = [[0.5, -1, 2], [3, 4, 5.25], [6, 7, 8]]


@pytest.mark.parametrize(
  'data',
  [
    '0.5 -1 2\n3 4 5.25\n6 7 8',
    '3\n0.5 -1 2 255 0 0\n3 4 5.25 0 0 0\n6 7 8 1 1 1\n',
    'x,y,z\r\n0.5,-1,2\r\n3,4,5.25\r\n6,7,8\r\n',
    '"X";"Y";"Z"\n0.5;-1;2\n3;4;5.25\n6;7;8\n',
    '0.5, -1 , 2, 9\n3, 4, 5.25, 9\n6,7,8,9\n',
    '// scanned\n0.5\t-1\t2 # first\n\n3 4 5.25\n6 7 8\n',
  ],
)
def test_points_as_text(data):
  for some in (
    data.encode(),
    data.encode('utf-16'),
    gzip.compress(data.encode()),
  ):
    points, faces = mesh_files.read_any(some, 'xyz')
    assert points.tolist() == CLOUD
    assert not len(faces)


# Polygons.


def prism(outline, height=1.0):
  """A prism as OBJ, whose two lids are single polygons."""
  n = len(outline)
  lines = [f'v {x} {y} {z}' for z in (0, height) for x, y in outline]
  lines.append('f ' + row(*range(n, 0, -1)))
  lines.append('f ' + row(*range(n + 1, 2 * n + 1)))
  for i in range(n):
    j = (i + 1) % n
    lines.append('f ' + row(i + 1, j + 1, n + j + 1, n + i + 1))
  return '\n'.join(lines).encode()


L = [(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)]
COMB = [(0, 0), (9, 0)] + [
  point
  for x in range(8, 0, -2)
  for point in ((x + 1, 5), (x, 5), (x - 0.5, 1), (x - 0.9, 1))
] + [(0, 1)]  # fmt: skip
STAR = [
  (np.cos(a) * r, np.sin(a) * r)
  for a, r in zip(np.arange(14) * np.pi / 7, [1, 0.3] * 7, strict=True)
]
# A square ring, cut open where inside and outside are joined.
RING = [
  (0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1)
]  # fmt: skip
SPIRAL = [
  (np.cos(a) * (a + w), np.sin(a) * (a + w))
  for w, angles in ((0.0, np.linspace(1, 15, 300)),
                    (2.0, np.linspace(15, 1, 300)))
  for a in angles
]  # fmt: skip


def area(outline):
  x, y = np.array(outline, float).T
  return 0.5 * (x * np.roll(y, -1) - y * np.roll(x, -1)).sum()


def triangle_areas(points, triangles):
  a, b, c = (points[triangles[:, k]] for k in range(3))
  return 0.5 * np.cross(b - a, c - a)


@pytest.mark.parametrize(
  'outline', [L, COMB, STAR, RING, SPIRAL], ids=['L', 'comb', 'star', 'ring',
                                                 'spiral']
)  # fmt: skip
@pytest.mark.parametrize('shift', [0, 1, 5])
@pytest.mark.parametrize('reverse', [False, True])
def test_triangles_cover_a_concave_polygon_once(outline, shift, reverse):
  outline = outline[shift:] + outline[:shift]
  outline = outline[::-1] if reverse else outline
  turn = trimesh.transformations.rotation_matrix(1.1, (3, 1, 2))[:3, :3]
  points = np.column_stack([outline, np.zeros(len(outline))]) @ turn.T
  triangles = polygons.cut(points, [len(outline)], np.arange(len(outline)))
  assert len(triangles) == len(outline) - 2
  signed = triangle_areas(points, triangles) @ turn[:, 2]
  # None is turned over, so equal areas mean that none lies outside.
  assert (np.sign(area(outline)) * signed > -1e-9).all()
  np.testing.assert_allclose(signed.sum(), area(outline), rtol=1e-9)


def test_concave_lids_give_the_voxels_of_their_parts():
  vertices, faces = mesh_files.read_mesh(prism(L), 'obj')
  parts = trimesh.util.concatenate(
    [
      trimesh.creation.box(bounds=[(0, 0, 0), (3, 1, 1)]),
      trimesh.creation.box(bounds=[(0, 0, 0), (1, 3, 1)]),
    ]
  )
  for size in (16, 32, 64):
    np.testing.assert_array_equal(
      voxelize.voxelize(vertices, faces, size),
      voxelize.voxelize(parts.vertices, parts.faces, size),
    )


def test_polygons_of_many_sizes_keep_their_order():
  points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
  counts = [3, 4, 2, 3, 1, 4]
  corners = [0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 3, 2, 1, 0]
  assert polygons.cut(points, counts, corners).tolist() == [
    [0, 1, 2], [0, 1, 2], [0, 2, 3], [2, 3, 0], [3, 2, 1], [3, 1, 0]
  ]  # fmt: skip
  assert polygons.cut(points, [2], [0, 1]).shape == (0, 3)


@pytest.mark.parametrize(
  'outline',
  [
    [(0, 0), (1, 1), (1, 0), (0, 1)],  # crosses itself.
    [(0, 0), (1, 0), (2, 0), (3, 0)],  # flat.
    [(0, 0)] * 5,
    [(np.cos(a), np.sin(a)) for a in np.arange(5) * 4 * np.pi / 5],
  ],
)
def test_polygons_without_an_inside_come_to_an_end(outline):
  points = np.column_stack([outline, np.zeros(len(outline))])
  triangles = polygons.cut(points, [len(outline)], np.arange(len(outline)))
  assert len(triangles) == len(outline) - 2


# What is refused, and how.


def edit(name, old, new):
  data = FILES[name]
  assert old in data, name
  return data.replace(old, new, 1)


LAST = row(3, *TRIANGLES[-1])
PLY_LAST = row(3, *TRIANGLES[-1]).encode() + b'\n3'
BROKEN = {
  'empty.off': ('', 'empty file'),
  'blank.obj': (' \n', 'empty file'),
  'html.off': ('<html>404</html>', "not an OFF file: it begins with '<html>"),
  'html.obj': ('<html>404</html>', "not an OBJ file: it has '<html>"),
  'html.ply': ('<html>404</html>', 'not a PLY file: it begins with'),
  'html.stl': ('<html>404</html>', 'truncated: 84 bytes promised'),
  'html.gltf': ('<html>404</html>', 'its JSON cannot be read'),
  'head.off': ('OFF\n', 'no counts of vertices and faces'),
  'counts.off': ('OFF\n3 x 0\n', "line 2: 'x' is not a number"),
  'half_count.off': ('OFF\n3.5 1 0\n', 'line 2: 3.5 is not a number of ver'),
  'no_faces.off': ('OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n', 'cloud of 3 points'),
  'five.off': (off('5OFF\n'), 'not an OFF file'),
  'nd.off': (off('nOFF\n5\n'), 'nOFF must have 3 dimensions'),
  'cut_faces.off': (off()[:-60], 'truncated'),
  'cut_corners.off': (off()[:120], 'truncated: 8 vertices and 12 faces'),
  'cut_row.off': (off()[: -len(LAST)], 'truncated: face 11 of 12 has 0 of'),
  'cut_quads.off': (off(faces=QUADS)[:-4], 'truncated: face 5 of 6 has 2 of'),
  'cut_binary.off': (binary_off()[:-4], 'truncated: face 5 is not whole'),
  'few_counts.off': (off(counts=(8, 11, 0)), 'line 22: there is more'),
  'many_counts.off': (off(counts=(8, 13, 0)), 'truncated: 13 faces'),
  'huge_counts.off': (off(counts=(10**9, 12, 0)), 'truncated: 1000000000 ver'),
  'short_corner.off': (
    edit('plain.off', row(*V[1]), row(*V[1][:2])),
    'line 4: vertex 1 has 2 numbers, not 3',
  ),
  'long_corner.off': (
    edit('plain.off', row(*V[1]), row(*V[1], 1)),
    'line 4: vertex 1 has 4 numbers, not 3',
  ),
  'infinity.off': (off('4OFF\n', corner=[0]), 'vertex 0 lies at infinity'),
  'nan.off': (off().replace('-0.5', 'nan', 1), 'coordinate is nan'),
  'beyond.off': (
    edit('plain.off', LAST, '3 0 1 8'),
    'line 22: index 8 out of range: there are 8 vertices',
  ),
  'negative.off': (
    edit('plain.off', LAST, '3 0 1 -1'),
    'line 22: index -1 out of range',
  ),
  'half.off': (
    edit('plain.off', LAST, '3 0 1 0.5'),
    'line 22: index 0.5 is not a whole number',
  ),
  'nan_index.off': (edit('plain.off', LAST, '3 0 1 nan'), 'index nan is not'),
  'beyond_quad.off': (off(faces=[*QUADS, [0, 1, 2, 99]]), 'line 17: index 99'),
  'odd_rest.off': (
    off(faces=QUADS, colour=[1, 2]),
    'line 11: 2 numbers follow the 4 corners of face 0',
  ),
  'word.off': (edit('plain.off', LAST, '3 0 x 1'), "line 22: 'x' is not"),
  'comment_word.off': (
    '# one\n# two\n' + edit('plain.off', LAST, '3 0 1e 1'),
    "line 24: '1e' is not a number",
  ),
  'binary_beyond.off': (binary_off([*QUADS, [0, 1, 8]]), 'index 8 out of'),
  'binary_coff.off': (b'COFF BINARY\n123', 'binary COFF is not supported'),
  'zero.obj': (obj(start=0), 'line 16: index 0, but the first vertex is 1'),
  'beyond.obj': (obj(start=2), 'index 9 out of range: there are 8 vertices'),
  'before.obj': (obj(start=-9), 'line 16: index -9 out of range'),
  'half.obj': (obj('{}.5'), 'line 16: index 1.5 is not a whole number'),
  'no_corner.obj': (obj('/{}'), 'line 16: a corner has no vertex'),
  'word.obj': (obj('{}x'), "line 16: '1x' is not a number"),
  'word_corner.obj': (edit('plain.obj', 'v 0.5', 'v O.5'), "'O.5' is not"),
  'two.obj': ('v 0 0\nf 1 1 1\n', 'line 1: a vertex has three coordinates'),
  'surface.obj': ('v 0 0 0\nsurf 0 1 0 1 1\n', 'line 2: a curved surface'),
  'no_faces.obj': ('v 0 0 0\nv 1 0 0\nv 0 1 0\n', 'cloud of 3 points'),
  'nothing.obj': ('hello\n', 'no faces'),
  'cut.ply': (ply(order='<')[:-6], 'truncated: it ends within the 12'),
  'cut_faces.ply': (ply(order='<')[:-20], 'truncated: it ends within the 12'),
  'cut_mixed.ply': (ply(MIXED, '<')[:-20], 'truncated: it ends within the 7'),
  'cut_text.ply': (ply()[:-9], 'truncated: 12 of element face'),
  'cut_list.ply': (ply()[:-12], 'truncated'),
  'cut_head.ply': (ply()[:40], 'truncated: its header has no end'),
  'more.ply': (ply(order='<') + b'abc', 'there are 3 more bytes'),
  'more_text.ply': (ply() + b'\n1', 'line 35: there is more after the last'),
  'beyond.ply': (ply(order='<', faces=[[0, 1, 8]]), 'index 8 out of range'),
  'negative.ply': (ply([[0, 1, -1]]), 'index -1 out of range'),
  'half.ply': (ply([[0, 1, 0.5]]), 'index 0.5 is not a whole number'),
  'strip.ply': (strips(False).replace('20 0', '20 8'), 'a strip: index 8 out'),
  'no_z.ply': (ply().replace(b'double z', b'double w'), 'no element vertex wi'),
  'odd_head.ply': (ply().replace(b'element', b'elephant', 1), 'line 5: .*elep'),
  'huge.ply': (ply().replace(b'vertex 8', b'vertex 9876543210'), 'truncated: '),
  'no_list.ply': (ply(name='corners'), 'element face has no list vertex_ind'),
  'cut.stl': (STL[:-20], 'truncated: 684 bytes promised for 12'),
  'cut_text.stl': (TEXT_STL[:-200], 'truncated: it has no endsolid'),
  'cut_second.stl': (
    TEXT_STL + TEXT_STL[: TEXT_STL.rindex('endfacet') + 8],
    'truncated: it has 1 endsolid for 2 solid',
  ),
  'more.stl': (STL + STL[84:184], 'there are 100 more bytes after the 12'),
  'words.stl': (TEXT_STL.replace('vertex ', 'vertex x', 1), 'is not a number'),
  'two.stl': (TEXT_STL.replace('vertex', 'vertex 1', 1), 'line 4: a vertex'),
  'apart.stl': (
    'solid a\nvertex 0 0 0\nendsolid',
    'line 2: a vertex outside of a facet',
  ),
  'empty_solid.stl': ('solid a\nendsolid a\n', 'no faces'),
  'word.xyz': ('1 2 3\n4 5 six\n', "line 2: 'six' is not a number"),
  'two.xyz': ('1 2 3\n4 5\n', "line 2: '4 5' has 2 numbers, not 3"),
  'flat.xyz': ('1 2\n4 5\n', "line 1: '1 2' has 2 numbers, not 3"),
  'count.xyz': ('3\n1 2 3\n', '3 points promised, but 1 lines follow'),
  'comma.xyz': ('0,5;1,25;2,5\n1,5;2;3\n', "line 1: '0,5;1,25;2,5' has comm"),
  'comma_tab.xyz': ('x\ty\tz\n0,5\t1,25\t2,5\n', 'line 2: .* has commas in'),
  'number.xyz': (
    '7 .1 .2 .3\n8 .2 .1 .4\n9 .5 .6 .2\n10 .3 .4 .3\n',
    'its first column counts from 7 to 10',
  ),
  'none.xyz': ('# nothing\n', 'no points'),
  'cloud.xyz': ('1 2 3\n', 'no faces: it is a cloud of 1 points'),
  'short.glb': (own_buffer()[:-30], 'truncated: .* bytes promised'),
  'one.glb': (b'glTF' + struct.pack('<II', 1, 20) + bytes(8), 'GLB version'),
  'one.gltf': (gltf(asset={'version': '1.0'})[0], "glTF version is '1.0'"),
  'list.gltf': ('[1, 2]', 'its JSON is not an object'),
  'nothing.gltf': ('{"asset": {"version": "2.0"}}', 'no faces'),
  'bad_node.gltf': (gltf(node=[{'mesh': 3}])[0], 'mesh 3 out of range'),
  'circle.gltf': (gltf(node=[{'children': [0]}])[0], 'node 0 is part of'),
  'skin.gltf': (gltf(node=[{'mesh': 0, 'skin': 0}])[0], 'node 0 has a skin'),
  'morphed.gltf': (
    gltf(node=[{'mesh': 0, 'weights': [0, 0.5]}])[0], 'mesh 0 is morphed'
  ),
  'turned.gltf': (
    gltf(node=[{'mesh': 0, 'rotation': [0, 0, 1, 1]}])[0],
    'node 0 has the rotation .*, whose length is not 1',
  ),
  'accessors.gltf': (gltf(accessors=[])[0], 'accessor 0 out of range'),
  'no_buffers.gltf': (gltf(buffers=[])[0], 'buffer 0 out of range'),
  'draco.gltf': (
    gltf(extensionsRequired=['KHR_draco_mesh_compression'])[0],
    r'it is compressed \(KHR_draco_mesh_compression\)',
  ),
  'views.gltf': (
    gltf(bufferViews=[{'buffer': 0, 'byteOffset': 99}] * 2)[0],
    'truncated: .* bytes of a buffer needed',
  ),
  'modes.gltf': (gltf(mode=9)[0], 'mode 9 of a primitive is unknown'),
  'threes.gltf': (
    gltf(accessors=[
      {'bufferView': 0, 'componentType': 5126, 'count': 8, 'type': 'VEC3'},
      {'bufferView': 1, 'componentType': 5123, 'count': 8, 'type': 'SCALAR'},
    ])[0], 'multiple of 3 corners, got 8'),
}  # fmt: skip


@pytest.mark.parametrize('name', BROKEN)
def test_broken_meshes_are_refused_with_the_reason(name):
  data, message = BROKEN[name]
  with pytest.raises(ValueError, match=message) as caught:
    voxelize.voxelize(*read(name, data), 32)
  assert len(str(caught.value).splitlines()) == 1
