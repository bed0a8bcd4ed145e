"""What the paper prints: Tables 1 to 5. Nothing here is a result of ours."""

# Columns of Tables 2 and 3: ours, 3D-GAN [17], 3D VAE [18], 3D ShapeNets [10].
SYNTHESIS_METHODS = ('paper', '3D-GAN', '3D-VAE', '3D ShapeNets')
# Table 1.
INCEPTION_SCORES = {
  '3D ShapeNets': '4.126 ± 0.193',
  '3D-GAN': '8.658 ± 0.450',
  '3D-VAE': '11.015 ± 0.420',
  '3D-WINN': '8.810 ± 0.180',
  'Primitive GAN': '11.520 ± 0.330',
  'paper': '11.772 ± 0.418',
}
# Table 2.
CLASS_PROBABILITIES = {
  'bathtub': (0.8348, 0.7017, 0.7190, 0.1644),
  'bed': (0.9202, 0.7775, 0.3963, 0.3239),
  'chair': (0.9920, 0.9700, 0.9892, 0.8482),
  'desk': (0.8203, 0.7936, 0.8145, 0.1068),
  'dresser': (0.7678, 0.6314, 0.7010, 0.2166),
  'monitor': (0.9473, 0.2493, 0.8559, 0.2767),
  'night_stand': (0.7195, 0.6853, 0.6592, 0.4969),
  'sofa': (0.9480, 0.9276, 0.3017, 0.4888),
  'table': (0.8910, 0.8377, 0.8751, 0.7902),
  'toilet': (0.9701, 0.8569, 0.6943, 0.8832),
}
# Table 3; of desk and dresser 0.1650 may be meant: see WORKSPACE.md.
CLASSIFICATION_ERRORS = {
  'bathtub': (0.1226, 0.2642, 0.2642, 0.8208),
  'bed': (0.0583, 0.1961, 0.5981, 0.6583),
  'chair': (0.0050, 0.0125, 0.0100, 0.1475),
  'desk': (0.0165, 0.1900, 0.1700, 0.8900),
  'dresser': (0.0165, 0.3000, 0.2400, 0.7950),
  'monitor': (0.0452, 0.7484, 0.1312, 0.7204),
  'night_stand': (0.2700, 0.3000, 0.3200, 0.4800),
  'sofa': (0.0397, 0.0471, 0.6868, 0.4912),
  'table': (0.0800, 0.1333, 0.1067, 0.1833),
  'toilet': (0.0174, 0.1233, 0.2994, 0.1047),
}
# Columns of Table 4: ours with 3 and with 2 layers, 3D-GAN [17], 3D
# ShapeNets [10].
RECOVERY_METHODS = (
  'paper, 3 layers',
  'paper, 2 layers',
  'paper, 3D-GAN',
  'paper, 3D ShapeNets',
)
RECOVERY_ERRORS = {
  'bathtub': (0.0152, 0.0316, 0.0266, 0.0621),
  'bed': (0.0068, 0.0071, 0.0240, 0.0617),
  'chair': (0.0118, 0.0126, 0.0238, 0.0444),
  'desk': (0.0122, 0.019, 0.0298, 0.0731),
  'dresser': (0.0038, 0.0076, 0.0384, 0.1558),
  'monitor': (0.0103, 0.0133, 0.0220, 0.0783),
  'night_stand': (0.0080, 0.0091, 0.0248, 0.2925),
  'sofa': (0.0068, 0.0071, 0.0186, 0.0563),
  'table': (0.0051, 0.0064, 0.0326, 0.0340),
  'toilet': (0.0119, 0.0129, 0.0180, 0.0977),
}
# Table 5.
ACCURACIES = {
  'Geometry Image': 0.884,
  'PANORAMA-NN': 0.911,
  'ECC': 0.900,
  '3D ShapeNets': 0.835,
  'DeepPano': 0.855,
  'SPH': 0.798,
  'LFD': 0.799,
  'VConv-DAE': 0.805,
  'VoxNet': 0.920,
  '3D-GAN': 0.910,
  '3D-WINN': 0.919,
  'Primitive GAN': 0.922,
  'paper': 0.924,
}
